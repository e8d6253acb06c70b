/** Verbs on several tenants: a few at once, each reported, and a failure keeps none of the others from its turn. */
import { exitCodeOf, messageOf, Reported, reportError } from "./exit.ts";
import { escaped } from "./terminal.ts";

/** A scheduler holds many more; a shell's `warren stop $(…)` need not fill its queue. */
const atOnce = 8;

/**
 * Runs it for each, at most eight at once, those named twice once. None is begun after an abort.
 * @throws what failed, of one; Reported with the exit code of the first in the order of `names`, of several
 */
export async function forEachOf(
  names: readonly string[],
  run: (name: string) => Promise<void>,
  { signal, report = reportError }: { signal?: AbortSignal; report?: (message: string) => void } = {},
): Promise<void> {
  const all = [...new Set(names)];
  const [only] = all;
  if (all.length === 1) return run(only!);
  const failures = new Map<string, unknown>();
  const waiting = all.values();
  const worker = async () => {
    for (const name of waiting) {
      if (signal?.aborted) return;
      try {
        await run(name);
      } catch (error) {
        failures.set(name, error);
        if (!signal?.aborted) report(`${escaped(name)}: ${messageOf(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, all.length) }, worker));
  const first = all.find((name) => failures.has(name));
  if (first !== undefined) throw new Reported(exitCodeOf(failures.get(first)));
}
