/** Tables in markdown, to be pasted into docs/performance.md. */
import type { Spread } from "./stats.ts";

/** The first column is text, the others are figures. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const pad = (cell: string, i: number) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!));
  const line = (cells: readonly string[]) => `| ${cells.map(pad).join(" | ")} |`;
  const rule = widths.map((width, i) => (i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`));
  return [line(head), line(rule), ...rows.map(line)].join("\n");
}

/** "7.8 (7.4–9.1)": the median, and from p10 to p90. */
export function around({ median, p10, p90 }: Spread): string {
  return `${short(median)} (${short(p10)}–${short(p90)})`;
}

/** Three digits that count, or more where the whole number has them. */
export function short(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

export function mib(bytes: number): string {
  return short(bytes / 2 ** 20);
}
