/** Instances that are proven gone with their node: nobody is left there to tell of their end, so it is told here. */
import { create } from "@bufbuild/protobuf";
import { toDuration, toTimestamp } from "@warren/common/time";
import { ExitReason, ExitSchema, InstanceMode, InstanceState, TransitionSchema } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { gone } from "./life.ts";
import type { Instance } from "./model.ts";

/** @param message the proof, in a few words */
export function goneWithNode(ctx: Context, instance: Instance, message: string): void {
  const { ref, phase, told, usage, wakes, pid, endpoint } = instance;
  const exit = create(ExitSchema, { reason: ExitReason.NODE_LOST, message });
  // Nothing of one that was not persisted yet was ever started.
  if (phase.kind !== "persisting") {
    const transition = create(TransitionSchema, {
      instance: ref,
      // What its node said last; nothing where this scheduler has not heard of it.
      from: told?.state ?? InstanceState.UNSPECIFIED,
      fromMode: told?.state === InstanceState.READY ? instance.mode : InstanceMode.UNSPECIFIED,
      to: InstanceState.EXITED,
      at: toTimestamp(ctx.at.wall),
      after: told && toDuration(ctx.at.mono - told.at),
      exit,
      usage,
      wakes,
      pid,
      endpoint,
    });
    ctx.emit({
      type: "event",
      tenant: ref.tenant,
      // Should the proof not be persisted before this scheduler dies, the next one finds it again: the same event.
      id: `node-lost:${ref.id}:1`,
      payload: { case: "transition", value: transition },
    });
  }
  gone(ctx, instance, exit);
}
