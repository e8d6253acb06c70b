/**
 * Whether an object that is given as a spec has only what the contract has. The library that makes messages of objects
 * ignores the rest, so that a typing error in `limits` would be a tenant without limits.
 */
import type { DescField, DescMessage, DescOneof } from "@bufbuild/protobuf";
import { TenantSpecSchema } from "@warren/proto/common";
import { below, meant, SpecError, shown } from "./error.ts";
import { unitOf } from "./units.ts";

/** @throws SpecError naming the path of what there is not */
export function checkSpecInit(spec: object): void {
  checkMessage(TenantSpecSchema, spec, "");
}

function checkMessage(desc: DescMessage, init: unknown, path: string): void {
  if (!isObject(init)) throw new SpecError(path, `${shown(init)} is not an object`);
  for (const [name, value] of Object.entries(init)) {
    if (name.startsWith("$") || value === undefined) continue; // of messages: $typeName, $unknown
    const member = desc.members.find(({ localName }) => localName === name);
    if (!member) throw new SpecError(below(path, name), `there is no such field${hint(desc, name, value)}`);
    if (member.kind === "oneof") checkOneof(member, value, below(path, name));
    else checkField(member, value, below(path, name));
  }
}

function hint(desc: DescMessage, name: string, value: unknown): string {
  const inOneof = desc.fields.find((field) => field.oneof && field.localName === name);
  if (inOneof) return `; write ${inOneof.oneof!.localName}: { case: "${name}", value: ${shown(value)} }`;
  return meant(
    name,
    desc.members.map(({ localName }) => localName),
  );
}

function checkOneof(oneof: DescOneof, value: unknown, path: string): void {
  const names = oneof.fields.map(({ localName }) => localName);
  if (!isObject(value) || !("case" in value))
    throw new SpecError(path, `${shown(value)} is not { case, value }, with a case of ${names.join(" or ")}`);
  if (value.case === undefined) return;
  if (!names.includes(value.case as string))
    throw new SpecError(below(path, "case"), `${shown(value.case)} is not ${names.join(" or ")}`);
}

function checkField(field: DescField, value: unknown, path: string): void {
  const unit = unitOf(field);
  if (unit && typeof value === "string") {
    const helper = `${unit}(${shown(value)})`;
    throw new SpecError(path, `${shown(value)} is text: write ${helper}, or read JSON with specFromJson`);
  }
  if (field.fieldKind === "message") checkMessage(field.message, value, path);
  if (field.fieldKind === "list") {
    if (!Array.isArray(value)) throw new SpecError(path, `${shown(value)} is not an array`);
    if (field.listKind !== "message") return;
    for (const [i, one] of value.entries()) checkMessage(field.message, one, below(path, i));
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
