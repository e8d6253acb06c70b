/** What verbs about the cluster, its nodes and its files print. */
import { InstanceSchema, NodeSchema } from "@warren/proto/common";
import { DisplacedVolumeSchema, GetStatsResponseSchema, SpentJoinTokenSchema } from "@warren/proto/scheduler";
import { z } from "zod";
import { count, directory, done, flag, node, text, texts } from "./fields.ts";
import { message, type Output } from "./shape.ts";

const { object, string, array } = z;

export const clusterOutputs: readonly Output[] = [
  {
    verb: "up",
    lines: [
      {
        what: "once it is up",
        fields: object({
          scheduler: text("URL"),
          metering: text("URL"),
          gateway: text("URL"),
          gatewayAdmin: text("URL of the gateway's health and metrics").optional(),
          credentials: text("credentials directory of a client"),
        }),
      },
      {
        what: "a process of it ended or is back",
        fields: object({
          kind: z.enum(["ended", "back", "failing"]).describe("what happened"),
          name: text("of the process"),
          message: text("why it fails").optional(),
        }),
      },
    ],
  },
  {
    verb: "version",
    lines: [
      {
        what: "versions",
        fields: object({
          warren: text("of this program"),
          bun: text("that it runs on"),
          scheduler: string().nullable().describe("of the cluster; null where it is not reached"),
        }),
      },
    ],
  },
  { verb: "nodes", lines: [{ what: "a node", message: NodeSchema }] },
  { verb: "cordon", lines: [{ what: "done", fields: object({ node, done: done("cordoned") }) }] },
  { verb: "uncordon", lines: [{ what: "done", fields: object({ node, done: done("uncordoned") }) }] },
  {
    verb: "forget",
    lines: [
      {
        what: "done",
        fields: object({
          node,
          done: done("forgot"),
          volumes: array(message(DisplacedVolumeSchema)).describe("what lay there, and what becomes of it"),
        }),
      },
    ],
  },
  {
    verb: "drain",
    lines: [
      {
        what: "once it is empty",
        fields: object({
          node,
          moved: count("instances that were replaced elsewhere"),
          stopped: count("that were stopped"),
          unsavedVolumes: texts("volumes (tenant/name) that could not be backed up as they were left"),
        }),
      },
    ],
  },
  { verb: "stats", lines: [{ what: "counts", message: GetStatsResponseSchema }] },
  {
    verb: "top",
    lines: [
      {
        what: "one look",
        fields: object({
          stats: message(GetStatsResponseSchema).describe("as of `stats`"),
          nodes: array(message(NodeSchema)).describe("as of `nodes`"),
          instances: array(message(InstanceSchema)).describe("all of them"),
        }),
      },
    ],
  },
  {
    verb: "state dump",
    lines: [
      {
        what: "what was written",
        fields: object({ file: text("path"), tenants: count("of them"), releases: count("of them") }),
      },
    ],
  },
  {
    verb: "state restore",
    lines: [
      {
        what: "what was restored",
        fields: object({
          releases: count("uploaded"),
          tenants: count("applied"),
          unchanged: count("tenants that were there as in the dump"),
          kept: texts("tenants that are there with another spec, and were left so"),
          missingNodes: texts("nodes that are cordoned in the dump and have not joined"),
        }),
      },
    ],
  },
  {
    verb: "ledger dump",
    lines: [
      {
        what: "what was written (nothing is said with -)",
        fields: object({ file: text("path"), rows: count("of it") }),
      },
    ],
  },
  { verb: "ledger restore", lines: [{ what: "what was read", fields: object({ rows: count("of it") }) }] },
  {
    verb: "ledger verify",
    lines: [
      {
        what: "the comparison",
        fields: object({
          equal: flag("whether the ledger is right"),
          records: count("counted again"),
          rows: count("compared"),
          difference: text("the first one").optional(),
        }),
      },
    ],
  },
  {
    verb: "ca init",
    lines: [
      {
        what: "the CA",
        fields: object({ directory, cell: text("name of the cluster"), isNew: flag("else it was kept") }),
      },
    ],
  },
  {
    verb: "ca issue",
    lines: [
      {
        what: "the credentials",
        fields: object({
          directory,
          cell: text("name of the cluster"),
          name: text("of the process"),
          role: text("of the process"),
          isNew: flag("else they were kept"),
          missingHosts: texts("hosts that a kept certificate does not name"),
        }),
      },
    ],
  },
  {
    verb: "token create",
    lines: [
      {
        what: "the join token: a secret",
        fields: object({
          token: text("to be shown when joining"),
          id: text("to revoke it by"),
          expiresAt: text("time"),
          node: text("name, or the beginning of names with a * behind it"),
          role: text("agent or gateway"),
          hosts: texts("names and addresses that the certificate is for"),
          uses: count("hosts that it lets in"),
        }),
      },
    ],
  },
  {
    verb: "token list",
    lines: [{ what: "a token that was used or revoked", message: SpentJoinTokenSchema }],
  },
  {
    verb: "token revoke",
    lines: [{ what: "done", fields: object({ id: text("of the token"), revoked: done(true) }) }],
  },
];
