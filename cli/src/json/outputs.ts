/** Every verb with --json and what it prints; docs/json.md is made from this, and a test compares it with real output. */
import {
  BackoffSchema,
  BackupSchema,
  EventSchema,
  InstanceSchema,
  NodeSchema,
  ReleaseSchema,
  TenantSchema,
  TenantSpecSchema,
} from "@warren/proto/common";
import { InvoiceSchema, TenantUsageSchema } from "@warren/proto/metering";
import {
  ExplainResponseSchema,
  GetStatsResponseSchema,
  LogLineSchema,
  SpentJoinTokenSchema,
  VolumeInfoSchema,
} from "@warren/proto/scheduler";
import { z } from "zod";
import { message, type Output } from "./shape.ts";

const { object, string, boolean, array, record } = z;
const text = (about: string) => string().describe(about);
const count = (about: string) => z.number().int().min(0).describe(about);
const flag = (about: string) => boolean().describe(about);
const texts = (about: string) => array(string()).describe(about);

const done = <T extends string | true>(value: T) => z.literal(value).describe("always this: it is done");

const tenant = text("its key");
const version = count("version of the tenant's spec");
const replaced = count("live instances that were replaced");
const node = text("name of the node");
const url = text("where it answers; empty for one that serves no HTTP");
const volume = text("name of the volume");
const directory = text("path");

export const outputs: readonly Output[] = [
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
    verb: "deploy",
    lines: [
      {
        what: "the deployed release",
        fields: object({
          tenant,
          release: text("digest"),
          sizeBytes: count("of the release, packed"),
          url,
          replaced,
        }),
      },
    ],
  },
  {
    verb: "set",
    lines: [
      {
        what: "what was changed",
        fields: object({
          tenant,
          version,
          changed: array(
            object({
              name: text("of the flag"),
              before: text("in people's units"),
              after: text("in people's units"),
            }),
          ).describe("settings"),
          env: texts("names of variables that were changed"),
          replaced,
        }),
      },
    ],
  },
  {
    verb: "env ls",
    lines: [{ what: "a variable", fields: object({ name: text("of it"), value: text("of it") }) }],
  },
  {
    verb: "env set",
    lines: [
      {
        what: "what was set",
        fields: object({ tenant, version, set: texts("names of variables"), replaced }),
      },
    ],
  },
  {
    verb: "env unset",
    lines: [
      {
        what: "what was unset",
        fields: object({ tenant, version, unset: texts("names of variables"), replaced }),
      },
    ],
  },
  {
    verb: "inspect",
    lines: [
      {
        what: "the tenant as it serves",
        fields: object({
          tenant,
          version,
          servingVersion: count("the version that serves"),
          rolledBack: flag("whether that is an older one"),
          url,
          createdAt: text("time"),
          updatedAt: text("time"),
          source: record(string(), string().nullable()).describe(
            'where the code is: {"release": digest} or {"directory": path}; {"none": null} without',
          ),
          env: record(string(), string()).describe("the spec's environment"),
          settings: array(
            object({
              name: text("as the flag is called"),
              value: text("in people's units"),
              from: z.enum(["spec", "cluster", "default"]).describe("who says so"),
            }),
          ).describe("all settings"),
          spec: message(TenantSpecSchema).describe("as it was applied"),
        }),
      },
    ],
  },
  {
    verb: "ensure",
    lines: [
      {
        what: "the instance that is ready",
        fields: object({
          tenant,
          url,
          instance: text("id").optional(),
          node: node.optional(),
          endpoint: text("host:port, where it may be called without the gateway").optional(),
          cold: flag("whether it was started for this"),
        }),
      },
    ],
  },
  {
    verb: "stop",
    lines: [{ what: "what was stopped", fields: object({ tenant, stopped: texts("ids of instances") }) }],
  },
  {
    verb: "restart",
    lines: [
      {
        what: "the new instance",
        fields: object({ tenant, url, instance: text("id").optional(), node: node.optional() }),
      },
    ],
  },
  { verb: "clear-backoff", lines: [{ what: "done", fields: object({ tenant, cleared: done(true) }) }] },
  { verb: "rm", lines: [{ what: "done", fields: object({ tenant, removed: done(true) }) }] },
  {
    verb: "ps",
    lines: [
      {
        what: "an instance: it has `ref`",
        message: InstanceSchema,
        fields: object({ tenant }),
      },
      {
        what: "a tenant without an instance: it has no `ref`, and comes after all instances",
        fields: object({
          tenant,
          state: z
            .enum(["cold", "back-off", "crash-loop"])
            .describe("cold: the next request starts it; else it failed, and is not started until later"),
          version,
          url,
          evicted: text("why its last instance was evicted").optional(),
          backoff: message(BackoffSchema).describe("how it failed").optional(),
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
  { verb: "forget", lines: [{ what: "done", fields: object({ node, done: done("forgot") }) }] },
  {
    verb: "drain",
    lines: [
      {
        what: "once it is empty",
        fields: object({
          node,
          moved: count("instances that were replaced elsewhere"),
          stopped: count("that were stopped"),
        }),
      },
    ],
  },
  {
    verb: "reload",
    lines: [{ what: "the new instances", fields: object({ tenant, instances: texts("ids") }) }],
  },
  { verb: "rollback", lines: [{ what: "the tenant now", message: TenantSchema }] },
  {
    verb: "releases",
    lines: [
      {
        what: "a release",
        message: ReleaseSchema,
        fields: object({ serving: flag("of a tenant: whether it runs this one").optional() }),
      },
    ],
  },
  { verb: "explain", lines: [{ what: "the explanation", message: ExplainResponseSchema }] },
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
  { verb: "logs", lines: [{ what: "a line of output", message: LogLineSchema }] },
  { verb: "events", lines: [{ what: "an event", message: EventSchema }] },
  { verb: "usage", lines: [{ what: "what a tenant used in a window", message: TenantUsageSchema }] },
  {
    verb: "export",
    lines: [
      {
        what: "what a tenant used in a window, zeros included (as --format json)",
        message: TenantUsageSchema,
      },
    ],
  },
  { verb: "invoice", lines: [{ what: "a tenant's invoice", message: InvoiceSchema }] },
  { verb: "volumes ls", lines: [{ what: "a volume", message: VolumeInfoSchema }] },
  {
    verb: "volumes rm",
    lines: [{ what: "done", fields: object({ tenant, name: volume, removed: done(true) }) }],
  },
  {
    verb: "volumes backup",
    lines: [
      {
        what: "once it is backed up",
        fields: object({
          tenant,
          name: volume,
          unchanged: flag("whether the last backup is as good, so that none was made"),
          backup: message(BackupSchema).describe("the backup that has it").optional(),
        }),
      },
    ],
  },
  {
    verb: "volumes restore",
    lines: [
      {
        what: "what the next start brings back",
        fields: object({
          tenant,
          name: volume,
          backup: message(BackupSchema).describe("the backup").optional(),
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

export const outputOf = (verb: string): Output | undefined => outputs.find((one) => one.verb === verb);
