/** What all verbs of the operator have in common: options, a client, Ctrl-C. */
import type { Warren } from "@warren/client";
import { parseCores, parseDuration, parseSize } from "@warren/common/quantities";
import { type Command, InvalidArgumentError } from "commander";
import { openWarren } from "./cluster.ts";
import { escaping } from "./escaping.ts";
import { Interrupted } from "./exit.ts";

export interface VerbOptions {
  readonly state?: string;
  readonly scheduler?: string;
  /** Of the verbs that ask the metering process. */
  readonly metering?: string;
  readonly credentials?: string;
  readonly json?: boolean;
  readonly timeout?: number;
}

export function durationOption(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined) throw new InvalidArgumentError("It must be a duration like 250ms, 30s, 5m or 1h.");
  return ms;
}

/** Of an option that may be repeated. */
export function collectOption(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text];
}

/** Bytes. */
export function sizeOption(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) throw new InvalidArgumentError("It must be a size like 256m, 512MiB or 1g.");
  return bytes;
}

/** Thousandths of a core, of "500m" or "0.5". */
export function coresOption(text: string): number {
  const millis = parseCores(text);
  if (millis === undefined) throw new InvalidArgumentError("It must be cores like 0.5, or 500m.");
  return millis;
}

/** Fits the contract's u32. */
export function countOption(text: string): number {
  const n = Number(text);
  if (text.trim() === "" || !Number.isInteger(n) || n < 0 || n >= 2 ** 32)
    throw new InvalidArgumentError("It must be a whole number from 0.");
  return n;
}

/** Adds `--state`, `--scheduler`, `--credentials`, `--json` and `--timeout`. */
export function asVerb(command: Command, timeout = "30s"): Command {
  return command
    .option(
      "--state <dir>",
      "state directory of the cell (default: WARREN_STATE, else ~/.local/state/warren)",
    )
    .option("--scheduler <urls>", "the cell's schedulers, with commas (default: WARREN_URL)")
    .option("--credentials <dir>", "credentials directory, with --scheduler (default: WARREN_CREDENTIALS)")
    .option("--json", "print JSON, one value per line")
    .option("--timeout <duration>", `how long each call may take (default: ${timeout})`, durationOption);
}

export interface ClientUse {
  /**
   * Answers as they are, controls of terminals included: for a verb that sends them back, or that escapes what it prints
   * by itself. JSON is always exact.
   */
  readonly exact?: boolean;
}

/**
 * Opens a client, runs the verb, closes the client; the signal aborts at Ctrl-C.
 * @throws Interrupted when it was aborted, however the verb took that
 */
export async function withWarren<T>(
  options: VerbOptions,
  run: (warren: Warren, signal: AbortSignal) => Promise<T>,
  { exact = options.json ?? false }: ClientUse = {},
): Promise<T> {
  const stop = new AbortController();
  let by: "SIGINT" | "SIGTERM" | undefined;
  const onSignal = (signal: "SIGINT" | "SIGTERM") => {
    by = signal;
    stop.abort();
  };
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  const warren = openWarren({ ...options, interceptors: exact ? [] : [escaping] });
  // Not every call is given the signal: with its connection each of them ends.
  stop.signal.addEventListener("abort", () => warren.close(), { once: true });
  try {
    const result = await run(warren, stop.signal);
    if (by) throw new Interrupted(by);
    return result;
  } catch (error) {
    throw by ? new Interrupted(by) : error;
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
    warren.close();
  }
}
