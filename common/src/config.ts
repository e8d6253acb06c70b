/**
 * Configuration of a process: one zod schema is the documentation, the defaults and the check. Flags win over the
 * environment, the environment over the file, the file over the defaults.
 */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { parseDuration, parseSize } from "./quantities.ts";

export { parseDuration, parseSize } from "./quantities.ts";

/** The configuration is wrong; the message names each field, its source and what it should be. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** The parts of "a, b,c". */
export function listOf(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
}

const mustBeHttps = "must be https://host:port";

function isHttpsUrl(text: string): boolean {
  return URL.canParse(text) && new URL(text).protocol === "https:";
}

/** Kinds of fields; each takes text (from a flag or the environment) as well as the JSON value (from a file). */
export const field = {
  text: () => z.string().min(1),
  port: () => z.coerce.number({ error: "must be a port" }).int().min(0).max(65535),
  count: () => z.coerce.number({ error: "must be a whole number" }).int().min(0),
  flag: () => z.union([z.boolean(), z.enum(["true", "false"]).transform((text) => text === "true")]),
  duration: () =>
    z.string().transform((text, context) => {
      const ms = parseDuration(text);
      if (ms === undefined)
        context.addIssue({ code: "custom", message: "must be a duration like 250ms, 30s, 5m or 1h" });
      return ms ?? 0;
    }),
  size: () =>
    z.union([z.string(), z.number().transform(String)]).transform((text, context) => {
      const bytes = parseSize(text);
      if (bytes === undefined)
        context.addIssue({ code: "custom", message: "must be a size like 512MiB or 2GiB" });
      return bytes ?? 0;
    }),
  httpsUrl: () => z.string().refine(isHttpsUrl, { error: mustBeHttps }),
  /** "https://a:1,https://b:1" or an array. */
  httpsUrls: () =>
    z.union([
      z.array(z.string().refine(isHttpsUrl, { error: mustBeHttps })).min(1),
      z.string().transform((text, context) => {
        const urls = listOf(text);
        if (urls.length === 0 || !urls.every(isHttpsUrl))
          context.addIssue({ code: "custom", message: `${mustBeHttps}, or several, with commas` });
        return urls;
      }),
    ]),
  /** "a=1,b=2" or an object. */
  pairs: () =>
    z.union([
      z.record(z.string(), z.string()),
      z.string().transform((text, context) => {
        const pairs = text
          .split(",")
          .filter(Boolean)
          .map((pair) => pair.split("="));
        if (pairs.some((pair) => pair.length !== 2 || !pair[0])) {
          context.addIssue({ code: "custom", message: "must be pairs like zone=a,disk=ssd" });
        }
        return Object.fromEntries(pairs.map(([name, value]) => [name!, value ?? ""]));
      }),
    ]),
};

/** `maxConcurrent` → "max-concurrent" */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The environment variable of a field: WARREN_SCHEDULER_MAX_CONCURRENT. */
export function envName(process: string, name: string): string {
  return `WARREN_${process}_${kebab(name)}`.toUpperCase().replaceAll("-", "_");
}

export interface ConfigSources {
  /** Which process: "scheduler". */
  readonly process: string;
  /** By the field's name; undefined counts as not given. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A JSON file with fields by name. */
  readonly file?: string;
}

/**
 * @throws ConfigError naming every field that is wrong or unknown
 */
export function loadConfig<S extends z.ZodObject>(
  schema: S,
  { process, flags, env, file }: ConfigSources,
): z.output<S> {
  const origins = new Map<string, string>();
  const values: Record<string, unknown> = {};
  const take = (name: string, value: unknown, origin: string): void => {
    if (value === undefined) return;
    values[name] = value;
    origins.set(name, origin);
  };
  for (const [name, value] of Object.entries(file === undefined ? {} : readFile(file)))
    take(name, value, `${file}: ${name}`);
  for (const name of Object.keys(schema.shape)) {
    take(name, env[envName(process, name)], envName(process, name));
    take(name, flags[name], `--${kebab(name)}`);
  }
  const parsed = schema.strict().safeParse(values);
  if (parsed.success) return parsed.data as z.output<S>;
  const lines = parsed.error.issues.map((issue) => {
    if (issue.code === "unrecognized_keys") return `${file}: unknown: ${issue.keys.join(", ")}`;
    const name = String(issue.path[0] ?? "");
    const missing = values[name] === undefined;
    const where = origins.get(name) ?? `--${kebab(name)} (or ${envName(process, name)})`;
    return `${where}: ${missing ? "is needed" : issue.message}`;
  });
  throw new ConfigError(lines.join("\n"));
}

function readFile(file: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(readFileSync(file, "utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch (error) {
    throw new ConfigError(`${file}: ${(error as Error).message}`);
  }
  throw new ConfigError(`${file}: must hold a JSON object`);
}
