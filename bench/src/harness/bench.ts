/** The frame of a bench: its time is bounded, and whatever it started is gone in the end, on Ctrl-C and on failure too. */
import { loadavg } from "node:os";
import { withDeadline } from "@warren/common/time";
import { describeMachine } from "./machine.ts";

export interface Bench {
  /** Aborted when it is to end: by Ctrl-C or because its time is over. */
  readonly signal: AbortSignal;
  /** Undone in reverse when it ends, however it ends. */
  later(what: string, undo: () => unknown): void;
  /** What it is at, on stderr. */
  say(text: string): void;
  /** A part of the result, on stdout. */
  print(markdown: string): void;
}

/** One step of the clean-up may take this long. */
const undoMs = 30_000;

/** Runs a bench and ends the process: 0 when it was measured, 1 when not, 130 when it was interrupted. */
export async function runBench(
  name: string,
  budgetMs: number,
  body: (bench: Bench) => Promise<void>,
): Promise<never> {
  const stop = new AbortController();
  const undo: { what: string; run: () => unknown }[] = [];
  let code = 0;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      code = 130;
      stop.abort(new Error(`interrupted by ${signal}`));
    });
  }
  const timer = setTimeout(() => stop.abort(new Error(`not measured within ${budgetMs / 1000} s`)), budgetMs);
  const say = (text: string) => process.stderr.write(`bench ${name}: ${text}\n`);
  const print = (markdown: string) => process.stdout.write(`${markdown}\n`);
  const stopped = new Promise<never>((_, reject) => {
    stop.signal.addEventListener("abort", () => reject(stop.signal.reason), { once: true });
  });
  const machine = describeMachine();
  try {
    await Promise.race([
      body({ signal: stop.signal, later: (what, run) => void undo.push({ what, run }), say, print }),
      stopped,
    ]);
    print(`\n${machine}, ${loadavg()[0]!.toFixed(2)} after.`);
  } catch (error) {
    code ||= 1;
    say(stop.signal.aborted ? `${stop.signal.reason.message}` : `failed: ${(error as Error).stack || error}`);
  }
  clearTimeout(timer);
  stop.abort();
  for (let step = undo.pop(); step; step = undo.pop()) {
    try {
      await withDeadline(Promise.resolve(step.run()), undoMs, step.what);
    } catch (error) {
      code ||= 1;
      say(`not cleaned up: ${step.what}: ${error instanceof Error ? error.message : error}`);
    }
  }
  process.exit(code);
}

/**
 * A whole number from the environment.
 * @throws RangeError when it is none from `least` to `most`
 */
export function setting(name: string, usual: number, least: number, most: number): number {
  const value = Number(process.env[name] || usual);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`${name}=${process.env[name]} must be a whole number from ${least} to ${most}`);
}
