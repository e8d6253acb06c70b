/**
 * A spec from JSON that a person wrote: protojson, and durations, sizes and cores in people's units. Every error names the path
 * of the field, which protojson's own do not.
 */
import {
  type DescField,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  ScalarType,
} from "@bufbuild/protobuf";
import { type TenantSpec, TenantSpecSchema } from "@warren/proto/common";
import { below, meant, SpecError, shown } from "./error.ts";
import { expectation, plainValue, unitOf } from "./units.ts";

/** A spec's JSON, or a part's, as protojson: for merging before it is read. @throws SpecError */
export const plainSpec = (json: unknown): JsonObject => plainMessage(TenantSpecSchema, json, "");

/** @throws SpecError naming the first field that is wrong, and what was expected */
export function specFromJson(json: unknown): TenantSpec {
  const plain = plainSpec(json);
  try {
    return fromJson(TenantSpecSchema, plain);
  } catch (error) {
    // What no field alone can be wrong in: two of a oneof.
    throw new SpecError("", (error as Error).message);
  }
}

/** @throws SpecError, also when the text is not JSON */
export function parseSpec(text: string): TenantSpec {
  let json: unknown;
  try {
    json = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    throw new SpecError("", `is not JSON: ${(error as Error).message}`);
  }
  return specFromJson(json);
}

function plainMessage(desc: DescMessage, json: unknown, path: string): JsonObject {
  if (!isObject(json)) throw new SpecError(path, `${shown(json)} is not an object`);
  const plain: JsonObject = {};
  for (const [name, value] of Object.entries(json)) {
    const field = desc.fields.find((one) => one.name === name || one.jsonName === name);
    if (!field) {
      const names = desc.fields.map((one) => one.name);
      throw new SpecError(below(path, name), `there is no such field${meant(name, names)}`);
    }
    const at = below(path, field.name);
    if (plain[field.jsonName] !== undefined) throw new SpecError(at, "is given twice");
    if (value === null) continue; // as protojson has it: not given
    plain[field.jsonName] = plainField(desc, field, value, at);
  }
  return plain;
}

function plainField(desc: DescMessage, field: DescField, value: unknown, path: string): JsonValue {
  const unit = unitOf(field);
  if (unit) {
    const plain = plainValue(unit, value);
    if (plain === undefined) throw new SpecError(path, `${shown(value)} ${expectation(unit, value)}`);
    return checked(desc, field, plain, path, value);
  }
  switch (field.fieldKind) {
    case "message":
      return plainMessage(field.message, value, path);
    case "list": {
      if (!Array.isArray(value)) throw new SpecError(path, `${shown(value)} is not an array`);
      return value.map((one: JsonValue, i) =>
        field.listKind === "message"
          ? plainMessage(field.message, one, below(path, i))
          : (checked(desc, field, [one], below(path, i), one) as JsonValue[])[0]!,
      );
    }
    case "map": {
      if (!isObject(value)) throw new SpecError(path, `${shown(value)} is not an object`);
      for (const [key, one] of Object.entries(value))
        checked(desc, field, { [key]: one as JsonValue }, below(path, key), one);
      return value as JsonObject;
    }
    default:
      return checked(desc, field, value as JsonValue, path, value);
  }
}

/** The value, if the contract takes it in this field. */
function checked(
  desc: DescMessage,
  field: DescField,
  value: JsonValue,
  path: string,
  given: unknown,
): JsonValue {
  try {
    fromJson(desc, { [field.jsonName]: value });
    return value;
  } catch {
    throw new SpecError(path, `${shown(given)} is not ${kindOf(field)}`);
  }
}

/** What a value of the field is, in words. */
function kindOf(field: DescField): string {
  if (field.enum) return `one of ${field.enum.values.map(({ name }) => name).join(", ")}`;
  switch (field.scalar) {
    case ScalarType.STRING:
      return "text in quotes";
    case ScalarType.BOOL:
      return "true or false";
    case ScalarType.UINT32:
    case ScalarType.UINT64:
      return "a whole number from 0";
    default:
      return "a number";
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
