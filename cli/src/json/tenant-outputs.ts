/** What verbs about tenants print. */
import {
  BackoffSchema,
  BackupSchema,
  EventSchema,
  InstanceSchema,
  ReleaseSchema,
  TenantSchema,
  TenantSpecSchema,
} from "@warren/proto/common";
import { InvoiceSchema, TenantUsageSchema } from "@warren/proto/metering";
import { ExplainResponseSchema, LogLineSchema, VolumeInfoSchema } from "@warren/proto/scheduler";
import { z } from "zod";
import { count, done, flag, node, replaced, tenant, text, texts, url, version, volume } from "./fields.ts";
import { message, type Output } from "./shape.ts";

const { object, string, array, record } = z;

export const tenantOutputs: readonly Output[] = [
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
];
