/** Which fields of a message are in which unit, by the contract's own types and names. Pure. */
import type { DescField } from "@bufbuild/protobuf";
import { parseCores, parseDuration, parseSize } from "@warren/common/quantities";
import { looks } from "./quantities.ts";

export type Unit = keyof typeof looks;

/** Durations by their type, sizes and cores by the unit that ends their name. */
export function unitOf(field: DescField): Unit | undefined {
  if (field.fieldKind === "message")
    return field.message.typeName === "google.protobuf.Duration" ? "duration" : undefined;
  if (field.fieldKind !== "scalar") return undefined;
  if (field.name.endsWith("_bytes")) return "size";
  return field.name.endsWith("_millis") ? "cores" : undefined;
}

/**
 * The value as protojson has it; nothing for what is none.
 * @param value as JSON has it: text in people's units, or what protojson takes
 */
export function plainValue(unit: Unit, value: unknown): string | number | undefined {
  if (typeof value === "number") return unit !== "duration" && isCount(value) ? value : undefined;
  if (typeof value !== "string") return undefined;
  switch (unit) {
    case "duration": {
      // Of protojson's own form all nine digits count.
      if (/^\d+(\.\d{1,9})?s$/.test(value)) return value;
      const ms = parseDuration(value);
      return ms === undefined ? undefined : `${Number((ms / 1000).toFixed(9))}s`;
    }
    case "size": {
      const bytes = parseSize(value);
      // Plain digits stay as they are: they may be more than a number holds exactly.
      return bytes === undefined ? undefined : /^\d+$/.test(value) ? value : `${bytes}`;
    }
    case "cores":
      // "500" may be meant as cores, as --cpu takes it, or as the contract's thousandths.
      return /^\d+$/.test(value.trim()) ? undefined : parseCores(value);
  }
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;

/** What was expected instead. */
export function expectation(unit: Unit, value: unknown): string {
  if (unit === "cores") {
    const n = Number(value);
    if (typeof value === "string" && /^\d+$/.test(value.trim()))
      return `may be cores or thousandths of one: write "${n}m" or ${n} for thousandths, ${n * 1000} for cores`;
    return `is not ${looks.cores}, nor a whole number of thousandths of a core`;
  }
  return `is not ${looks[unit]}`;
}
