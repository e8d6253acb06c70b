/**
 * Who of an instance's processes is sent SIGTERM: the app itself and nobody else. Its children are its own, to be told and
 * waited for as it likes, until the grace is over; a signal of ours to each would end workers before their parent could
 * let them finish, and one to `bun run` and to its script would come to the script twice. Once the app has ended, those
 * that it left have nobody else to tell them, and are told. Pure.
 */
import type { Stat } from "./host/kernel.ts";

/** What is known of an instance's first process. */
export interface FirstProcess {
  readonly main?: { readonly pid: number; readonly startTicks: number };
  /** Name of the program around its command, if there is one: it ends with the command, and is not signalled. */
  readonly wrapper?: string;
}

/** @param left its live processes */
export function recipients({ main, wrapper }: FirstProcess, left: readonly Stat[]): readonly Stat[] {
  const others = left.filter((stat) => stat.comm !== wrapper);
  const first = left.find((stat) => stat.pid === main?.pid && stat.startTicks === main.startTicks);
  if (!first) return others;
  if (first.comm !== wrapper) return [first];
  // The app is the eldest child of the wrapper; later ones are orphans, which are the wrapper's to reap.
  const wrappers = new Set(left.filter((stat) => stat.comm === wrapper).map((stat) => stat.pid));
  const children = others.filter((stat) => wrappers.has(stat.ppid));
  return children.sort((a, b) => a.startTicks - b.startTicks || a.pid - b.pid).slice(0, 1);
}
