/** Deadlines of calls, handed on to the core a little early, so that its answer still reaches the caller. */
import type { HandlerContext } from "@connectrpc/connect";
import { rpcLimits } from "@warren/common/rpc/limits";
import type { Moment } from "../core/model.ts";

/** Share of the remaining time kept for the way back, and the most of it in ms. */
const share = 0.1;
const most = 250;

/** The moment (mono) by which the core must have answered. */
export function deadlineOf(context: HandlerContext, at: Moment): number {
  const left = context.timeoutMs() ?? rpcLimits.defaultTimeoutMs;
  return at.mono + left - Math.min(most, left * share);
}
