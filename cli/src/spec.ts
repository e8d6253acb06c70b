/** A tenant's spec, from three places: package.json#warren, a protojson file, flags; the later wins field by field. */
import { existsSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { create, fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { isKey, keyRule } from "@warren/common/ids";
import { toDuration } from "@warren/common/time";
import { IdlePolicySchema, ReadinessSchema, type TenantSpec, TenantSpecSchema } from "@warren/proto/common";
import { UserError } from "./exit.ts";

export interface SpecFlags {
  readonly name?: string;
  readonly spec?: string;
  readonly env?: readonly string[];
  readonly command?: readonly string[];
  readonly idle?: number;
  readonly keepWarm?: boolean;
  readonly ready?: string;
  readonly readyTimeout?: number;
}

/**
 * @throws UserError naming the file or the flag that is wrong
 */
export function readSpec(directory: string, flags: SpecFlags): TenantSpec {
  const manifest = readJson(join(directory, "package.json"));
  const own = manifest?.warren;
  if (own !== undefined && !isObject(own)) {
    throw new UserError(
      `${join(directory, "package.json")}: "warren" must be an object, a TenantSpec as protojson`,
    );
  }
  const fromFile = flags.spec === undefined ? {} : readJson(flags.spec, true);
  const spec = parse({ ...own, ...fromFile }, flags.spec ?? `${join(directory, "package.json")}#warren`);
  spec.key = flags.name ?? (spec.key || keyFrom(manifest, directory));
  if (!isKey(spec.key))
    throw new UserError(`the tenant's name ${JSON.stringify(spec.key)} ${keyRule}: give another with --name`);
  for (const pair of flags.env ?? []) {
    const at = pair.indexOf("=");
    if (at < 1) throw new UserError(`--env ${pair}: must be NAME=value`);
    spec.env[pair.slice(0, at)] = pair.slice(at + 1);
  }
  if (flags.command?.length) spec.command = [...flags.command];
  if (flags.idle !== undefined || flags.keepWarm !== undefined) {
    spec.idle ??= create(IdlePolicySchema);
    if (flags.idle !== undefined) spec.idle.stopAfter = toDuration(flags.idle);
    if (flags.keepWarm !== undefined) spec.idle.keepWarm = flags.keepWarm;
  }
  if (flags.ready !== undefined || flags.readyTimeout !== undefined) {
    spec.readiness ??= create(ReadinessSchema);
    if (flags.ready !== undefined) spec.readiness.path = flags.ready;
    if (flags.readyTimeout !== undefined) spec.readiness.timeout = toDuration(flags.readyTimeout);
  }
  return spec;
}

function parse(json: JsonObject, from: string): TenantSpec {
  try {
    return fromJson(TenantSpecSchema, json);
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
    const json = JSON.parse(readFileSync(path, "utf8")) as JsonValue;
    if (isObject(json)) return json;
  } catch (error) {
    throw new UserError(`${path}: ${(error as Error).message}`);
  }
  throw new UserError(`${path}: must hold a JSON object`);
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
