/** CSV as RFC 4180 has it: a line of names, CRLF. Nothing is quoted: keys are DNS labels, all else is times and digits. */
import { activeMs } from "../billing/catalog.ts";
import type { ExportRow, RowFormat } from "./row.ts";

const columns: readonly (readonly [name: string, text: (row: ExportRow) => string])[] = [
  ["tenant", ({ tenant }) => tenant],
  ["start", ({ start }) => (start === undefined ? "" : new Date(start).toISOString())],
  ["end", ({ end }) => (end === undefined ? "" : new Date(end).toISOString())],
  ["cpu_us", ({ use }) => `${use.cpuUs}`],
  ["memory_byte_seconds", ({ use }) => `${use.memoryByteSeconds}`],
  ["wall_ms", ({ use }) => `${use.wallMs}`],
  ["active_ms", ({ use }) => `${activeMs(use)}`],
  ["frozen_ms", ({ use }) => `${use.frozenMs}`],
  ["requests", ({ use }) => `${use.requests}`],
  ["bytes_out", ({ use }) => `${use.bytesOut}`],
  ["starts", ({ use }) => `${use.starts}`],
  ["thaws", ({ use }) => `${use.thaws}`],
  ["instances", ({ instances }) => `${instances}`],
  // Last: who reads columns by their number finds the others where they were.
  ["volume_byte_seconds", ({ use }) => `${use.volumeByteSeconds}`],
];

export const csv: RowFormat = {
  head: `${columns.map(([name]) => name).join(",")}\r\n`,
  row: (row) => `${columns.map(([, text]) => text(row)).join(",")}\r\n`,
};
