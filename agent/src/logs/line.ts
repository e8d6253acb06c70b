/**
 * The copy's format, a text file that can be read from either end. A line of output is
 * `1763724000123 o text`: ms since 1970 in 13 digits; o or e for stdout or stderr, as a capital where the line was cut;
 * then the bytes as the tenant wrote them. A mark is a line that begins with `=`: see {@link Mark}.
 */
export const streams = ["stdout", "stderr"] as const;
export type StreamName = (typeof streams)[number];

export interface Line {
  readonly stream: StreamName;
  /** When the agent read it, ms since 1970. */
  readonly at: number;
  readonly text: string;
  /** It was longer than the bound on lines and is cut. */
  readonly cut: boolean;
  /** It has no newline yet. */
  readonly partial?: true;
}

/** A line as it was read: bytes without the newline. */
export interface RawLine {
  readonly bytes: Uint8Array;
  readonly cut: boolean;
  /** A remark of the agent, not the tenant's. */
  readonly ours?: true;
}

/** What is left out until the next newline: nothing, the rest of a line that was cut, what follows a gap. */
export const skips = ["nothing", "cut", "gap"] as const;
export type Skip = (typeof skips)[number];

/** Bytes that were dropped and not said yet: there were too many, or this node could not keep them. */
export interface Dropped {
  readonly rate: number;
  readonly host: number;
}

/** How far one raw file has been taken in. */
export interface StreamMark {
  readonly offset: number;
  readonly skip: Skip;
  readonly dropped: Dropped;
}

/**
 * Stands in the copy after each batch, written together with it, and at the beginning of each file: an agent that comes
 * back cuts off what follows the last whole mark and goes on from there, so that nothing is lost or repeated.
 */
export interface Mark extends Readonly<Record<StreamName, StreamMark>> {
  /** Lines ever written to this copy. */
  readonly lines: number;
}

export const noMark: Mark = {
  lines: 0,
  stdout: { offset: 0, skip: "nothing", dropped: { rate: 0, host: 0 } },
  stderr: { offset: 0, skip: "nothing", dropped: { rate: 0, host: 0 } },
};

const stampDigits = 13;
/** Bytes of a line beyond its text: the stamp, the letter, two spaces, the newline. */
export const overheadBytes = stampDigits + 4;
const newline = 0x0a;
const carriageReturn = 0x0d;
const markSign = 0x3d;

export function encodeLines(stream: StreamName, at: number, lines: readonly RawLine[]): Buffer {
  const stamp = String(Math.max(0, Math.floor(at))).padStart(stampDigits, "0");
  const letter = stream === "stdout" ? "o" : "e";
  const whole = Buffer.from(`${stamp} ${letter} `);
  const cut = Buffer.from(`${stamp} ${letter.toUpperCase()} `);
  const size = lines.reduce((sum, line) => sum + line.bytes.length + overheadBytes, 0);
  const out = Buffer.allocUnsafe(size);
  let end = 0;
  for (const line of lines) {
    out.set(line.cut ? cut : whole, end);
    out.set(line.bytes, end + overheadBytes - 1);
    end += line.bytes.length + overheadBytes;
    out[end - 1] = newline;
  }
  return out;
}

/** When a line was read, ms since 1970; NaN for what is no line. */
export function stampOf(bytes: Buffer): number {
  return isMark(bytes) ? Number.NaN : Number(bytes.toString("latin1", 0, stampDigits));
}

/** Undefined for a mark, and for what is no line of this format. */
export function parseLine(bytes: Buffer): Line | undefined {
  const at = Number(bytes.toString("latin1", 0, stampDigits));
  const letter = bytes.toString("latin1", stampDigits, overheadBytes - 1);
  if (!Number.isSafeInteger(at) || !/^ [oeOE] $/.test(letter)) return undefined;
  const end = bytes.at(-1) === carriageReturn ? bytes.length - 1 : bytes.length;
  return {
    stream: letter[1]!.toLowerCase() === "o" ? "stdout" : "stderr",
    at,
    text: bytes.toString("utf8", overheadBytes - 1, Math.max(overheadBytes - 1, end)),
    cut: letter[1]! < "a",
  };
}

export function encodeMark(mark: Mark): string {
  const of = ({ offset, skip, dropped }: StreamMark) =>
    [offset, skips.indexOf(skip), dropped.rate, dropped.host].join(" ");
  return `= ${mark.lines} ${of(mark.stdout)} ${of(mark.stderr)}\n`;
}

export function isMark(bytes: Uint8Array): boolean {
  return bytes[0] === markSign;
}

/** Undefined for what is no mark. */
export function parseMark(bytes: Buffer): Mark | undefined {
  if (!isMark(bytes)) return undefined;
  const numbers = bytes.toString("latin1", 2).split(" ").map(Number);
  if (numbers.length !== 9 || !numbers.every((n) => Number.isSafeInteger(n) && n >= 0)) return undefined;
  const of = ([offset, skip, rate, host]: number[]): StreamMark => ({
    offset: offset!,
    skip: skips[skip!] ?? "nothing",
    dropped: { rate: rate!, host: host! },
  });
  return { lines: numbers[0]!, stdout: of(numbers.slice(1, 5)), stderr: of(numbers.slice(5)) };
}
