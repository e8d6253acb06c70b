/**
 * Colours for people: on a terminal only, be it in CI or not. NO_COLOR takes them away, FORCE_COLOR gives them to a pipe.
 * Each stream has its own, since often only one of them is a terminal.
 */
import picocolors from "picocolors";

export interface ColorSettings {
  readonly isTty: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
}

export function hasColors({ isTty, env }: ColorSettings): boolean {
  if (env.NO_COLOR) return false;
  if (env.FORCE_COLOR) return env.FORCE_COLOR !== "0";
  return isTty && env.TERM !== "dumb";
}

const of = (stream: { readonly isTTY?: boolean }) =>
  picocolors.createColors(hasColors({ isTty: stream.isTTY === true, env: process.env }));

/** For what goes to stdout. */
const pc = of(process.stdout);
export default pc;

/** For what goes to stderr. */
export const errorColors = of(process.stderr);
