/** docs/json.md: the schemas of what verbs print, as a page. Pure. */
import type { DescEnum, DescField, DescMessage } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { z } from "zod";
import { type Line, messageNamed, type Output } from "./shape.ts";

/** Comments of the contracts: by "warren.common.v1.Instance", and by that and a field, "….Instance.pid". */
export type Comments = ReadonlyMap<string, string>;

const intro = `# What verbs print with \`--json\`

Made from the schemas in \`cli/src/json/outputs.ts\` by \`make gen\`; a test compares real output with them.

- One JSON value per line, on standard output. What is said besides (progress, warnings, errors) goes to standard error.
- Whether a verb did what it was asked to tells its exit code (\`warren --help\`), not its output: a verb that fails prints
  nothing, or only what came before.
- A list without entries prints no line.
- Later versions may add fields: ignore those that you do not know.
- Messages of the contracts are [protojson](https://protobuf.dev/programming-guides/json/): 64-bit numbers are text, durations
  are \`"1.5s"\`, times \`"2026-11-30T10:00:00Z"\`, enums go by name, and fields with their default value (0, "", false, empty) are
  left out.

\`\`\`sh
warren ps --json | jq -r 'select(.ref | not) | "\\(.tenant) \\(.state)"'       # tenants without an instance
warren ps shop --json | jq -e 'select(.state == "INSTANCE_STATE_READY")'     # exit code 0: it is up
warren top --json | jq '.nodes[] | {name, instances}'
\`\`\`
`;

export function jsonPage(outputs: readonly Output[], comments: Comments): string {
  const named = new Map<string, DescMessage>();
  const verbs = outputs.map((output) => verbText(output, named)).join("\n");
  // Those that are found inside of others are added while this goes on.
  const texts = new Map<string, string>();
  for (const [name, desc] of named) texts.set(name, messageText(desc, comments, named));
  const messages = [...texts.keys()].sort().map((name) => texts.get(name));
  return `${intro}\n## Verbs\n\n${verbs}\n## Messages\n\n${messages.join("\n")}`;
}

function verbText({ verb, lines }: Output, named: Map<string, DescMessage>): string {
  return `### warren ${verb}\n\n${lines.map((line) => lineText(line, named)).join("\n")}`;
}

function lineText({ what, message, fields }: Line, named: Map<string, DescMessage>): string {
  if (message) named.set(message.name, message);
  const of = message ? `${fields ? ", and" : ","} all fields of ${link(message.name)}` : "";
  return `${upper(what)}${message ? of : ""}.\n${fields ? `\n${fieldsText(fields, named)}` : ""}`;
}

function fieldsText(fields: z.ZodObject, named: Map<string, DescMessage>): string {
  const schema = z.toJSONSchema(fields, { unrepresentable: "any" }) as Schema;
  return table(rowsOf(schema, "", named));
}

/** What is used of JSON Schema. */
interface Schema {
  readonly type?: string | readonly string[];
  readonly title?: string;
  readonly description?: string;
  readonly enum?: readonly string[];
  readonly const?: unknown;
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly required?: readonly string[];
}

function rowsOf(schema: Schema, prefix: string, named: Map<string, DescMessage>): string[][] {
  const required = new Set(schema.required);
  return Object.entries(schema.properties ?? {}).flatMap(([name, one]) => {
    const path = `${prefix}${name}`;
    const about = `${one.description ?? ""}${required.has(name) ? "" : " (may be absent)"}`.trim();
    const inner = one.items ?? one;
    return [
      [`\`${path}\``, typeText(one, named), about],
      ...rowsOf(inner, `${path}${one.items ? "[]" : ""}.`, named),
    ];
  });
}

function typeText(schema: Schema, named: Map<string, DescMessage>): string {
  const desc = schema.title === undefined ? undefined : messageNamed(schema.title);
  if (desc) {
    named.set(desc.name, desc);
    return link(desc.name);
  }
  if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``;
  if (schema.enum) return schema.enum.map((one) => `\`"${one}"\``).join(", ");
  if (schema.anyOf) return schema.anyOf.map((one) => typeText(one, named)).join(" or ");
  if (schema.items) return `array of ${typeText(schema.items, named)}`;
  if (schema.type === "object" && typeof schema.additionalProperties === "object")
    return `object of ${typeText(schema.additionalProperties, named)}`;
  const types = typeof schema.type === "string" ? [schema.type] : (schema.type ?? []);
  return types.map((type) => words[type] ?? type).join(" or ");
}

const words: Readonly<Record<string, string>> = {
  string: "text",
  boolean: "true or false",
  integer: "number",
};

function messageText(desc: DescMessage, comments: Comments, named: Map<string, DescMessage>): string {
  const rows = desc.fields.map((field) => [
    `\`${field.jsonName}\``,
    fieldType(field, named),
    comments.get(`${desc.typeName}.${field.name}`) ?? "",
  ]);
  const about = comments.get(desc.typeName);
  return `### ${desc.name}\n\n${about ? `${about}\n\n` : ""}${table(rows)}`;
}

function fieldType(field: DescField, named: Map<string, DescMessage>): string {
  switch (field.fieldKind) {
    case "list":
      return `array of ${valueType(field, named)}`;
    case "map":
      return `object of ${valueType(field, named)}`;
    default:
      return valueType(field, named);
  }
}

function valueType({ message, enum: values, scalar }: DescField, named: Map<string, DescMessage>): string {
  if (values) return enumText(values);
  if (!message) return scalarText(scalar!);
  if (message.typeName === "google.protobuf.Duration") return "duration";
  if (message.typeName === "google.protobuf.Timestamp") return "time";
  named.set(message.name, message);
  return link(message.name);
}

const enumText = ({ values }: DescEnum): string =>
  values
    .filter(({ number }) => number !== 0)
    .map(({ name }) => `\`${name}\``)
    .join(", ");

function scalarText(scalar: ScalarType): string {
  switch (scalar) {
    case ScalarType.STRING:
      return "text";
    case ScalarType.BYTES:
      return "base64";
    case ScalarType.BOOL:
      return "true or false";
    case ScalarType.INT64:
    case ScalarType.UINT64:
      return "number as text";
    default:
      return "number";
  }
}

const link = (name: string): string => `[${name}](#${name.toLowerCase()})`;
const upper = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

function table(rows: readonly (readonly string[])[]): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  const lines = rows.map((row) => `| ${row.map(cell).join(" | ")} |`.replaceAll("|  |", "| |"));
  return `| field | type | what |\n| --- | --- | --- |\n${lines.join("\n")}\n`;
}
