/** Gives the events of one term their ids: the epoch rises with each lease, so that it serves as the incarnation. */
import { type EventStyle, encodeEvent } from "@warren/common/cloudevents";
import type { Effect } from "./core/effects.ts";
import type { Outbox } from "./outbox.ts";

export class Publisher {
  #seq = 0;

  constructor(
    private readonly outbox: Outbox,
    private readonly options: { readonly source: string; readonly epoch: bigint; readonly style: EventStyle },
  ) {}

  /** @param at ms since 1970 */
  publish({ tenant, payload, id }: Extract<Effect, { type: "event" }>, at: number): void {
    const { source, epoch, style } = this.options;
    const event = { id: id ?? `${source}:${epoch}:${++this.#seq}`, source, time: at, tenant, payload };
    this.outbox.publish(encodeEvent(event, style));
  }
}
