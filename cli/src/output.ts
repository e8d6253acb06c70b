/** What verbs print: a table or text for people, JSON for programs (`--json`). */
import { type DescMessage, type MessageShape, toJson } from "@bufbuild/protobuf";
import Table from "cli-table3";
import pc from "./colors.ts";
import { escapedJson } from "./terminal.ts";

export function printJson(value: unknown): void {
  process.stdout.write(`${escapedJson(JSON.stringify(value))}\n`);
}

export function messageJson<D extends DescMessage>(schema: D, message: MessageShape<D>): unknown {
  return toJson(schema, message, { alwaysEmitImplicit: false });
}

const plain = {
  top: "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  bottom: "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  left: "",
  "left-mid": "",
  mid: "",
  "mid-mid": "",
  right: "",
  "right-mid": "",
  middle: "  ",
};

export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  process.stdout.write(tableText(head, rows));
}

export function tableText(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const table = new Table({
    head: head.map((title) => pc.bold(title)),
    chars: plain,
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [] },
  });
  table.push(...rows.map((row) => [...row]));
  return `${table.toString().replace(/[ \t]+$/gm, "")}\n`;
}

/** Cells of some columns, the head's too, so that numbers end under each other. */
export function alignedRight(
  rows: readonly (readonly string[])[],
  isRight: (column: number) => boolean,
): string[][] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => Bun.stringWidth(row[column]!))));
  return rows.map((row) =>
    row.map((cell, column) =>
      isRight(column) ? " ".repeat(widths[column]! - Bun.stringWidth(cell)) + cell : cell,
    ),
  );
}

/** Progress on a terminal: one line that is written over; nothing where nobody watches. */
export function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

export function age(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)}s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)}m${Math.floor((ms % 60_000) / 1000)}s`;
  return `${Math.floor(ms / 3_600_000)}h${Math.floor((ms % 3_600_000) / 60_000)}m`;
}

export function bytes(n: number): string {
  const unit =
    n >= 2 ** 30 ? (["GiB", 30] as const) : n >= 2 ** 20 ? (["MiB", 20] as const) : (["KiB", 10] as const);
  const value = n / 2 ** unit[1];
  return `${value >= 100 ? Math.round(value) : value.toFixed(1)} ${unit[0]}`;
}
