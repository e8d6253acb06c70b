/**
 * A snapshot of a ledger as text, the same for every kind of ledger: one JSON object per line, first a header, last a line
 * that says how many rows there were, so that half a file is not taken for a whole.
 */
import { type Meters, meterNames, meters } from "../core/meters.ts";
import { type LedgerRow, unknownHour } from "../ledger/rows.ts";

/** 1 had nothing of what folding needs: it is read as a ledger of which nothing was folded. */
export const formatVersion = 2;
const oldestFormat = 1;
const format = "warren-ledger";

/** A text is no snapshot, or not a whole one. */
export class SnapshotError extends Error {
  override readonly name = "SnapshotError";
}

export async function* toLines(rows: AsyncIterable<LedgerRow>, now: number): AsyncGenerator<string, void> {
  yield `${JSON.stringify({ format, version: formatVersion, at: new Date(now).toISOString() })}\n`;
  let count = 0;
  for await (const row of rows) {
    count++;
    yield `${JSON.stringify(toJson(row))}\n`;
  }
  yield `${JSON.stringify({ end: true, rows: count })}\n`;
}

/** @throws SnapshotError naming the line */
export async function* fromLines(lines: AsyncIterable<string>): AsyncGenerator<LedgerRow, void> {
  let number = 0;
  let rows = 0;
  let ended = false;
  for await (const line of lines) {
    number++;
    const at = `line ${number}`;
    const value = parsed(line, at);
    if (number === 1) checkHeader(value);
    else if (ended) throw new SnapshotError(`${at}: there is something behind the end`);
    else if (value.end === true) {
      if (value.rows !== rows)
        throw new SnapshotError(`${at}: ${value.rows} rows were written, ${rows} are there`);
      ended = true;
    } else {
      yield fromJson(value, at);
      rows++;
    }
  }
  if (!ended) throw new SnapshotError(`it ends after line ${number}, in the middle: it is not whole`);
}

type Json = Record<string, unknown>;

function parsed(line: string, at: string): Json {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === "object" && value !== null) return value as Json;
  } catch {
    // Said below.
  }
  throw new SnapshotError(`${at} is not a JSON object`);
}

function checkHeader({ format: found, version }: Json): void {
  if (found !== format) throw new SnapshotError("it is not a snapshot of a Warren ledger");
  if (!(Number(version) >= oldestFormat && Number(version) <= formatVersion)) {
    throw new SnapshotError(`it is of version ${version}, this program knows up to ${formatVersion}`);
  }
}

/** What JSON's numbers do not hold goes as text; meters that are 0 are left out. */
function toJson(row: LedgerRow): Json {
  switch (row.table) {
    case "account":
    case "posting":
      return { ...row, used: toText(row.used) };
    case "position":
      return { ...row, seq: `${row.seq}` };
    case "quarantined":
      return { ...row, seq: `${row.seq}`, data: Buffer.from(row.data).toString("base64") };
    default:
      return { ...row };
  }
}

const toText = (used: Meters) =>
  Object.fromEntries(meterNames.filter((name) => used[name] > 0n).map((name) => [name, `${used[name]}`]));

function fromJson(value: Json, at: string): LedgerRow {
  const bad = (name: string) => new SnapshotError(`${at}: ${name} is missing or wrong`);
  const text = (name: string): string => {
    const found = value[name];
    if (typeof found !== "string") throw bad(name);
    return found;
  };
  const count = (name: string, missing?: number): number => {
    const found = value[name] ?? missing;
    if (!Number.isSafeInteger(found)) throw bad(name);
    return found as number;
  };
  const integer = (name: string, of: Json = value): bigint => {
    const found = of[name] ?? "0";
    if (typeof found !== "string" || !/^\d{1,30}$/.test(found)) throw bad(name);
    return BigInt(found);
  };
  const used = (): Meters => meters((name) => integer(name, (value.used ?? {}) as Json));
  const { table } = value;
  switch (table) {
    case "position":
      return { table, source: text("source"), seq: integer("seq"), recordId: text("recordId") };
    case "clock":
      return { table, days: text("days"), day: count("day"), foldAfter: count("foldAfter") };
    case "account":
      return {
        table,
        account: text("account"),
        tenant: text("tenant"),
        started: value.started === true,
        used: used(),
        seen: count("seen", 0),
        firstHour: count("firstHour", unknownHour),
        lastHour: count("lastHour", unknownHour),
        fromHour: count("fromHour", unknownHour),
      };
    case "posting":
      return {
        table,
        hour: count("hour"),
        tenant: text("tenant"),
        account: text("account"),
        starts: count("starts"),
        instances: count("instances", 0),
        used: used(),
      };
    case "run":
      return {
        table,
        run: text("run"),
        ranges: text("ranges"),
        missing: count("missing"),
        lastAt: count("lastAt"),
      };
    case "alert":
      return { table, month: count("month"), tenant: text("tenant"), percent: count("percent") };
    case "quarantine-count":
      return { table, kind: text("kind"), n: count("n") };
    case "quarantined":
      return {
        table,
        recordId: text("recordId"),
        kind: text("kind"),
        reason: text("reason"),
        source: text("source"),
        seq: integer("seq"),
        storedAt: count("storedAt"),
        subject: text("subject"),
        headers: text("headers"),
        data: Buffer.from(text("data"), "base64"),
      };
    default:
      throw new SnapshotError(`${at} is of the unknown table ${JSON.stringify(table)}`);
  }
}
