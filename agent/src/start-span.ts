/** The start of an instance as a span, with a part for each of its phases. */
import { type OpenSpan, openSpan } from "@warren/common/trace";
import { ExitReason, type InstanceRef } from "@warren/proto/common";
import type { InstanceRecord } from "./records.ts";

export class StartSpan {
  #span: OpenSpan | undefined;

  constructor(ref: InstanceRef) {
    this.#span = openSpan("instance.start", { "warren.tenant": ref.tenant, "warren.instance": ref.id });
  }

  /** For the tenant, should it trace itself; undefined while tracing is off. */
  get traceparent(): string | undefined {
    return this.#span?.traceparent;
  }

  /**
   * The start has come out; later calls change nothing.
   * @param now ms since 1970
   */
  end({ phases, state, startDurationMs = 0 }: InstanceRecord, now: number): void {
    const span = this.#span;
    if (!span) return;
    this.#span = undefined;
    if (state.phase !== "ready" || !phases) {
      span.end(state.error ?? new Error(state.cause?.message ?? ExitReason[state.cause?.reason ?? 0]));
      return;
    }
    // They follow each other, up to now.
    let at = now - startDurationMs - phases.fetchMs - phases.queueMs - phases.spawnMs;
    for (const [key, ms] of Object.entries(phases)) {
      span.part(`instance.${key.slice(0, -"Ms".length)}`, at, at + ms);
      at += ms;
    }
    span.end();
  }
}
