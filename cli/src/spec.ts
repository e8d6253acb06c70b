/** A tenant's spec, from three places: package.json#warren, a JSON file, flags; the later wins field by field. */
import { existsSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { create, fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { plainSpec, specFromJson } from "@warren/client";
import { isKey, keyRule } from "@warren/common/ids";
import { toDuration } from "@warren/common/time";
import {
  Availability,
  IdlePolicySchema,
  InstancesSchema,
  LimitsSchema,
  LivenessSchema,
  ReadinessKind,
  ReadinessSchema,
  ReloadPolicySchema,
  RestartPolicy,
  type TenantSpec,
  TenantSpecSchema,
} from "@warren/proto/common";
import { envPair, readEnvFile, withoutBom } from "./env.ts";
import { UserError } from "./exit.ts";
import { type RungName, rungOf } from "./names.ts";
import { parseUsageLimit } from "./usage-limit.ts";
import { parseVolume } from "./volume-flag.ts";

export interface SpecFlags {
  readonly name?: string;
  readonly spec?: string;
  readonly env?: readonly string[];
  readonly envFile?: readonly string[];
  readonly command?: readonly string[];
  readonly idle?: number;
  readonly keepWarm?: boolean;
  readonly ready?: string;
  readonly readyKind?: ReadyKind;
  readonly readyTimeout?: number;
  readonly live?: string;
  readonly liveInterval?: number;
  readonly heartbeat?: number;
  readonly isolation?: RungName;
  readonly memory?: number;
  readonly cpu?: number;
  readonly pids?: number;
  readonly openFiles?: number;
  readonly disk?: number;
  readonly writable?: readonly string[];
  readonly volume?: readonly string[];
  readonly freeze?: number;
  readonly pageOut?: number;
  readonly neverFreeze?: boolean;
  readonly adaptive?: boolean;
  readonly min?: number;
  readonly max?: number;
  readonly concurrency?: number;
  readonly maxPerNode?: number;
  readonly priority?: number;
  readonly restart?: RestartPolicyName;
  readonly batch?: number;
  readonly stopFirst?: boolean;
  readonly atMostOne?: boolean;
  readonly usageLimit?: readonly string[];
}

export const restartPolicies = ["never", "on-failure", "always"] as const;

export type RestartPolicyName = (typeof restartPolicies)[number];

const policyOf: Record<RestartPolicyName, RestartPolicy> = {
  never: RestartPolicy.NEVER,
  "on-failure": RestartPolicy.ON_FAILURE,
  always: RestartPolicy.ALWAYS,
};

export const readyKinds = ["port", "message", "none"] as const;

export type ReadyKind = (typeof readyKinds)[number];

const kindOf: Record<ReadyKind, ReadinessKind> = {
  port: ReadinessKind.PORT,
  message: ReadinessKind.MESSAGE,
  none: ReadinessKind.NONE,
};

/**
 * @throws UserError naming the file or the flag that is wrong
 */
export function readSpec(directory: string, flags: SpecFlags): TenantSpec {
  const manifest = readJson(join(directory, "package.json"));
  const own = manifest?.warren;
  if (own !== undefined && !isObject(own)) {
    throw new UserError(
      `${join(directory, "package.json")}: "warren" must be an object, a TenantSpec as JSON`,
    );
  }
  const spec = fromJson(TenantSpecSchema, {
    ...plain(own, `${join(directory, "package.json")}#warren`),
    ...(flags.spec === undefined ? {} : plain(readJson(flags.spec, true), flags.spec)),
  });
  spec.key = flags.name ?? (spec.key || keyFrom(manifest, directory));
  if (!isKey(spec.key))
    throw new UserError(`the tenant's name ${JSON.stringify(spec.key)} ${keyRule}: give another with --name`);
  applyFlags(spec, flags);
  return spec;
}

/** What flags say, field by field, over what the spec has. @throws UserError naming the flag that is wrong */
export function applyFlags(spec: TenantSpec, flags: SpecFlags): void {
  Object.assign(
    spec.env,
    ...(flags.envFile ?? []).map(readEnvFile),
    ...(flags.env ?? []).map((pair) => envPair(pair)),
  );
  if (flags.command?.length) spec.command = [...flags.command];
  if (flags.isolation !== undefined) spec.isolation = rungOf[flags.isolation];
  if (flags.priority !== undefined) spec.priority = flags.priority;
  if (flags.restart !== undefined) spec.restart = policyOf[flags.restart];
  if (flags.volume?.length) spec.volumes = flags.volume.map(parseVolume);
  if (flags.writable?.length) spec.writable = [...flags.writable];
  if (flags.usageLimit?.length) spec.usageLimits = flags.usageLimit.map(parseUsageLimit);
  if (flags.atMostOne !== undefined)
    spec.availability = flags.atMostOne ? Availability.AT_MOST_ONE : Availability.UNSPECIFIED;
  if (anyOf(flags.idle, flags.keepWarm, flags.freeze, flags.pageOut, flags.neverFreeze, flags.adaptive)) {
    spec.idle ??= create(IdlePolicySchema);
    if (flags.idle !== undefined) spec.idle.stopAfter = toDuration(flags.idle);
    if (flags.freeze !== undefined) spec.idle.freezeAfter = toDuration(flags.freeze);
    if (flags.pageOut !== undefined) spec.idle.pageOutAfter = toDuration(flags.pageOut);
    spec.idle.keepWarm = flags.keepWarm ?? spec.idle.keepWarm;
    spec.idle.neverFreeze = flags.neverFreeze ?? spec.idle.neverFreeze;
    spec.idle.adaptive = flags.adaptive ?? spec.idle.adaptive;
  }
  if (anyOf(flags.min, flags.max, flags.concurrency, flags.maxPerNode)) {
    spec.instances ??= create(InstancesSchema);
    spec.instances.min = flags.min ?? spec.instances.min;
    spec.instances.max = flags.max ?? spec.instances.max;
    spec.instances.targetConcurrency = flags.concurrency ?? spec.instances.targetConcurrency;
    spec.instances.maxPerNode = flags.maxPerNode ?? spec.instances.maxPerNode;
  }
  if (anyOf(flags.batch, flags.stopFirst)) {
    spec.reload ??= create(ReloadPolicySchema);
    spec.reload.batch = flags.batch ?? spec.reload.batch;
    spec.reload.stopFirst = flags.stopFirst ?? spec.reload.stopFirst;
  }
  if (anyOf(flags.ready, flags.readyKind, flags.readyTimeout)) {
    spec.readiness ??= create(ReadinessSchema);
    if (flags.ready !== undefined) spec.readiness.path = flags.ready;
    if (flags.readyKind !== undefined) spec.readiness.kind = kindOf[flags.readyKind];
    if (flags.readyTimeout !== undefined) spec.readiness.timeout = toDuration(flags.readyTimeout);
  }
  if (anyOf(flags.live, flags.liveInterval, flags.heartbeat)) {
    spec.liveness ??= create(LivenessSchema);
    if (flags.live !== undefined) spec.liveness.path = flags.live;
    if (flags.liveInterval !== undefined) spec.liveness.interval = toDuration(flags.liveInterval);
    if (flags.heartbeat !== undefined) spec.liveness.heartbeat = toDuration(flags.heartbeat);
  }
  const { memory, cpu, pids, openFiles, disk } = flags;
  if (anyOf(memory, cpu, pids, openFiles, disk)) {
    spec.limits ??= create(LimitsSchema);
    if (memory !== undefined) spec.limits.memoryBytes = BigInt(memory);
    if (cpu !== undefined) spec.limits.cpuMillis = cpu;
    if (pids !== undefined) spec.limits.pids = pids;
    if (openFiles !== undefined) spec.limits.openFiles = openFiles;
    if (disk !== undefined) spec.limits.diskBytes = BigInt(disk);
  }
}

function anyOf(...flags: readonly unknown[]): boolean {
  return flags.some((flag) => flag !== undefined);
}

/** A spec's JSON without people's units, fit to be merged. @throws UserError naming the file and the field */
function plain(json: JsonObject | undefined, from: string): JsonObject {
  if (json === undefined) return {};
  try {
    specFromJson(json);
    return plainSpec(json);
  } catch (error) {
    throw new UserError(`${from}: ${(error as Error).message}`);
  }
}

/** The package's name without its scope, else the directory's, as far as it can be one. */
function keyFrom(manifest: JsonObject | undefined, directory: string): string {
  const name = typeof manifest?.name === "string" ? manifest.name : basename(directory);
  return name.replace(/^@[^/]*\//, "");
}

/** Whether package.json names dependencies that are not there. */
export function missingDependencies(directory: string): boolean {
  const dependencies = readJson(join(directory, "package.json"))?.dependencies;
  return (
    isObject(dependencies) &&
    Object.keys(dependencies).length > 0 &&
    !existsSync(join(directory, "node_modules"))
  );
}

function readJson(path: string, needed = false): JsonObject | undefined {
  if (!needed && !existsSync(path)) return undefined;
  try {
    const json = JSON.parse(withoutBom(readFileSync(path, "utf8"))) as JsonValue;
    if (isObject(json)) return json;
  } catch (error) {
    throw new UserError(`${path}: ${(error as Error).message}`);
  }
  throw new UserError(`${path}: must hold a JSON object`);
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
