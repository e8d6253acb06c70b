/**
 * What a spec can set, by the names of the flags: how a value is shown, and what holds where there is none. Fields of a
 * contract that is newer than this list are shown as JSON.
 */

import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { clearField, clone, equals, isFieldSet, type Message, toJson } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { fromDuration } from "@warren/common/time";
import {
  Availability,
  Expose,
  Isolation,
  ReadinessKind,
  RestartPolicy,
  type TenantSpec,
  TenantSpecSchema,
  type UsageLimit,
  UsageMeter,
  UsagePeriod,
  type Volume,
  type WarmWindow,
} from "@warren/proto/common";
import type { ClusterDefaults } from "@warren/proto/scheduler";
import { quoted } from "./command-words.ts";
import { UserError } from "./exit.ts";
import { enumText } from "./names.ts";
import { coresText, durationText, sizeText } from "./quantities.ts";

type Otherwise = string | ((defaults: ClusterDefaults) => string);

interface Setting {
  readonly name: string;
  /** Of its field, by the local names of the contract. */
  readonly path: string;
  readonly text: (value: never) => string;
  /** What holds where the spec says nothing: Warren's default, or what this cluster is told. */
  readonly otherwise: Otherwise;
}

function setting<T>(name: string, path: string, text: (value: T) => string, otherwise: Otherwise): Setting {
  return { name, path, text, otherwise };
}

const count = (n: number): string => `${n}`;
const asIs = (text: string): string => text;
const yes = (): string => "yes";
const duration = (value: Duration): string => durationText(fromDuration(value, 0));
const orUnknown = (value: Duration | undefined): string => (value ? duration(value) : "the cluster's");
const pairs = (map: Record<string, string>): string =>
  Object.entries(map)
    .map(([name, value]) => `${name}=${value}`)
    .join(" ");

const settings: readonly Setting[] = [
  setting<string[]>("command", "command", (words) => words.map(quoted).join(" "), "the app's own entry"),
  setting<Isolation>("isolation", "isolation", (value) => enumText(Isolation[value]), "auto"),
  setting("memory", "limits.memoryBytes", sizeText, "no limit"),
  setting("cpu", "limits.cpuMillis", coresText, "no limit"),
  setting("pids", "limits.pids", count, "its isolation's"),
  setting("open-files", "limits.openFiles", count, "its isolation's"),
  setting("disk", "limits.diskBytes", sizeText, "no limit"),
  setting<Volume[]>("volume", "volumes", (volumes) => volumes.map(volumeText).join(", "), "none"),
  setting<string[]>("writable", "writable", (paths) => paths.join(", "), "none"),
  setting<ReadinessKind>("ready-kind", "readiness.kind", (value) => enumText(ReadinessKind[value]), "port"),
  setting("ready", "readiness.path", asIs, "no path: that it listens is enough"),
  setting("ready-status", "readiness.status", count, "200 to 399"),
  setting("ready-timeout", "readiness.timeout", duration, ({ readinessTimeout }) =>
    orUnknown(readinessTimeout),
  ),
  setting("live", "liveness.path", asIs, "no path"),
  setting("live-interval", "liveness.interval", duration, "10s"),
  setting("live-timeout", "liveness.timeout", duration, "2s"),
  setting("live-threshold", "liveness.threshold", count, "3"),
  setting("live-start-period", "liveness.startPeriod", duration, "0s"),
  setting("heartbeat", "liveness.heartbeat", duration, "none"),
  setting("drain", "stop.drain", duration, ({ drain }) => orUnknown(drain)),
  setting("grace", "stop.grace", duration, ({ grace }) => orUnknown(grace)),
  setting("freeze", "idle.freezeAfter", duration, ({ freezeAfter }) => orUnknown(freezeAfter)),
  setting("page-out", "idle.pageOutAfter", duration, ({ pageOutAfter }) => orUnknown(pageOutAfter)),
  setting("idle", "idle.stopAfter", duration, ({ stopAfter }) => orUnknown(stopAfter)),
  setting("keep-warm", "idle.keepWarm", yes, "no"),
  setting("never-freeze", "idle.neverFreeze", yes, "no"),
  setting("adaptive", "idle.adaptive", yes, "no"),
  setting<WarmWindow[]>("warm", "idle.warm", (windows) => windows.map(warmText).join(", "), "none"),
  setting("min", "instances.min", count, "0"),
  setting("max", "instances.max", count, "1"),
  setting(
    "concurrency",
    "instances.targetConcurrency",
    count,
    ({ targetConcurrency }) => `${targetConcurrency || "the cluster's"}`,
  ),
  setting("max-per-node", "instances.maxPerNode", count, "no bound"),
  setting("share-port", "instances.sharePort", yes, "no"),
  setting("priority", "priority", count, "0"),
  setting<RestartPolicy>("restart", "restart", (value) => enumText(RestartPolicy[value]), "never"),
  setting<Availability>(
    "at-most-one",
    "availability",
    (value) => (value === Availability.AT_MOST_ONE ? "yes" : "no"),
    "no",
  ),
  setting<Expose>("expose", "expose", (value) => enumText(Expose[value]), "gateway"),
  setting("batch", "reload.batch", count, "1"),
  setting("stop-first", "reload.stopFirst", yes, "no"),
  setting<UsageLimit[]>("usage-limit", "usageLimits", (limits) => limits.map(limitText).join(", "), "none"),
  setting<Record<string, string>>("node-labels", "nodeLabels", pairs, "none"),
];

/** What --unset takes. */
export const settingNames: readonly string[] = settings.map(({ name }) => name);

/** One line of `inspect`. */
export interface Shown {
  readonly name: string;
  readonly value: string;
  /** Who says so: the tenant's spec, this cluster's settings, or nobody: Warren's default. */
  readonly from: "spec" | "cluster" | "default";
}

export function shownSettings(spec: TenantSpec, defaults: ClusterDefaults | undefined): Shown[] {
  const known = settings.map(({ name, path, text, otherwise }): Shown => {
    const { message, field } = fieldAt(spec, path);
    if (message && isFieldSet(message, field)) {
      const value = (message as unknown as Record<string, unknown>)[field.localName];
      return { name, value: text(value as never), from: "spec" };
    }
    if (typeof otherwise === "string") return { name, value: otherwise, from: "default" };
    return { name, value: defaults ? otherwise(defaults) : "the cluster's", from: "cluster" };
  });
  return [...known, ...newer(spec)];
}

/** Lines of two specs that differ. */
export function changedSettings(
  before: TenantSpec,
  after: TenantSpec,
): { readonly name: string; readonly before: string; readonly after: string }[] {
  const was = new Map(shownSettings(before, undefined).map((one) => [one.name, one.value]));
  return shownSettings(after, undefined)
    .filter(({ name, value }) => was.get(name) !== value)
    .map(({ name, value }) => ({ name, before: was.get(name) ?? "none", after: value }));
}

/** Back to what holds without it. @throws UserError for an unknown name */
export function unsetSetting(spec: TenantSpec, name: string): void {
  const found = settings.find((one) => one.name === name.replace(/^--/, ""));
  if (!found) {
    throw new UserError(`--unset ${name}: there is no such setting: they are ${settingNames.join(", ")}`);
  }
  const { message, field, parent } = fieldAt(spec, found.path);
  if (!message) return;
  clearField(message, field);
  // A part of which nothing is left says nothing, and some may not be empty.
  if (parent && equals(parent.message!, message, clearedOf(parent.message!, message)))
    clearField(spec, parent);
}

function clearedOf(desc: DescMessage, message: Message): Message {
  const empty = clone(desc, message);
  for (const field of desc.fields) clearField(empty, field);
  return empty;
}

/** Where a setting stands; no message where its part of the spec is absent. */
function fieldAt(spec: TenantSpec, path: string) {
  const [first, second] = path.split(".") as [string, string?];
  const top = fieldOf(TenantSpecSchema, first);
  if (second === undefined) return { message: spec as Message | undefined, field: top, parent: undefined };
  const part = (spec as unknown as Record<string, Message | undefined>)[first];
  return { message: part, field: fieldOf(top.message!, second), parent: top };
}

function fieldOf(desc: DescMessage, localName: string): DescField {
  const field = desc.fields.find((one) => one.localName === localName);
  if (!field) throw new Error(`${desc.typeName} has no field ${localName}`);
  return field;
}

const shownElsewhere = ["key", "release", "directory", "env"];

function newer(spec: TenantSpec): Shown[] {
  const listed = new Set([...settings.map(({ path }) => path.split(".")[0]!), ...shownElsewhere]);
  const json = toJson(TenantSpecSchema, spec) as Record<string, unknown>;
  return TenantSpecSchema.fields
    .filter((field) => !listed.has(field.localName) && json[field.jsonName] !== undefined)
    .map(({ name, jsonName }) => ({
      name: name.replaceAll("_", "-"),
      value: JSON.stringify(json[jsonName]),
      from: "spec" as const,
    }));
}

const days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

function warmText({ days: on, from, until, timeZone }: WarmWindow): string {
  const when = on.length === 0 ? "daily" : on.map((day) => days[day - 1] ?? `${day}`).join("+");
  return `${when} ${from}-${until} ${timeZone || "UTC"}`;
}

/** As --volume takes it. */
function volumeText({ name, path, sizeBytes }: Volume): string {
  return `${name}:${path}${sizeBytes > 0n ? `:${sizeText(sizeBytes)}` : ""}`;
}

function limitText({ meter, period, max }: UsageLimit): string {
  return `${enumText(UsageMeter[meter])}=${max}/${enumText(UsagePeriod[period])}`;
}
