/** What verbs print with --json, as schemas: of the contract's messages, of zod, or one inside of the other. */
import { type DescMessage, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { z } from "zod";

/** One kind of line. */
export interface Line {
  /** What it is, and how it is told from other lines of the same verb. */
  readonly what: string;
  /** Its fields are this message's, as protojson. */
  readonly message?: DescMessage;
  /** Fields of its own, beside the message's or alone. */
  readonly fields?: z.ZodObject;
}

/** A verb with --json. */
export interface Output {
  /** "env set" */
  readonly verb: string;
  readonly lines: readonly Line[];
}

const messages = new Map<string, DescMessage>();

/** A field that holds a message of the contracts. */
export function message(desc: DescMessage): z.ZodType {
  messages.set(desc.name, desc);
  return z.custom((value) => !problemOf(desc, value)).meta({ title: desc.name });
}

/** Those that are fields of something, by name. */
export const messageNamed = (name: string): DescMessage | undefined => messages.get(name);

function problemOf(desc: DescMessage, value: unknown): string | undefined {
  try {
    fromJson(desc, value as JsonValue);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Why a value is no such line; nothing if it is one. What the schema does not name is wrong as well. */
export function lineProblem({ message: desc, fields }: Line, value: unknown): string | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return "is not an object";
  const names = new Set(Object.keys(fields?.shape ?? {}));
  const entries = Object.entries(value);
  const own = entries.filter(([name]) => !desc || names.has(name));
  const parsed = (fields ?? z.object({})).strict().safeParse(Object.fromEntries(own));
  if (!parsed.success) return z.prettifyError(parsed.error);
  return desc && problemOf(desc, Object.fromEntries(entries.filter(([name]) => !names.has(name))));
}

/** Why a value is no line of this verb; nothing if it is one. */
export function outputProblem({ verb, lines }: Output, value: unknown): string | undefined {
  const problems = lines.map((line) => lineProblem(line, value));
  if (problems.includes(undefined)) return undefined;
  return `${verb} printed ${JSON.stringify(value)}:\n${problems.join("\n")}`;
}
