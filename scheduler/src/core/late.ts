/** Calls whose deadline has passed. */
import type { Context } from "./context.ts";

/** Takes them out, for the caller to tell them so. */
export function takeLate<T extends { readonly deadline: number }>(ctx: Context, calls: T[]): T[] {
  const late = calls.filter(({ deadline }) => deadline <= ctx.at.mono);
  if (late.length) calls.splice(0, calls.length, ...calls.filter(({ deadline }) => deadline > ctx.at.mono));
  return late;
}
