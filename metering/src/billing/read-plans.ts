/** Reads a plans file: YAML, TOML or JSON, by its name. */
import { readFileSync } from "node:fs";
import { extname } from "node:path";
import { ConfigError } from "@warren/common/config";
import type { z } from "zod";
import type { Plans } from "./plan.ts";
import { plansFrom, plansSchema } from "./schema.ts";

const parsers: Readonly<Record<string, (text: string) => unknown>> = {
  ".yaml": (text) => Bun.YAML.parse(text),
  ".yml": (text) => Bun.YAML.parse(text),
  ".toml": (text) => Bun.TOML.parse(text),
  ".json": (text) => JSON.parse(text),
};

/** @throws ConfigError that names the file, the place in it, and what should be there */
export function readPlans(path: string): Plans {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new ConfigError(`${path}: the plans cannot be read: ${(error as Error).message}`);
  }
  return parsePlans(path, text);
}

/**
 * @param path for its ending, and for messages
 * @throws ConfigError as `readPlans`
 */
export function parsePlans(path: string, text: string): Plans {
  const parse = parsers[extname(path).toLowerCase()];
  if (!parse) throw new ConfigError(`${path}: plans are a file .yaml, .yml, .toml or .json`);
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new ConfigError(`${path}: ${(error as Error).message}`);
  }
  const parsed = plansSchema.safeParse(value);
  if (parsed.success) return plansFrom(parsed.data);
  throw new ConfigError(parsed.error.issues.map((issue) => `${path}: ${issueText(issue, value)}`).join("\n"));
}

function issueText(issue: z.core.$ZodIssue, value: unknown): string {
  const at = placeOf(issue.path);
  if (issue.code === "unrecognized_keys") return `${at}unknown: ${issue.keys.join(", ")}`;
  const given = issue.path.reduce<unknown>(
    (inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key],
    value,
  );
  return `${at}${given === undefined && issue.code !== "custom" ? `is needed: ${issue.message}` : issue.message}`;
}

/** "plans.pro.prices[0].micros: " */
function placeOf(path: readonly PropertyKey[]): string {
  const text = path
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
    .join("")
    .replace(/^\./, "");
  return text === "" ? "" : `${text}: `;
}
