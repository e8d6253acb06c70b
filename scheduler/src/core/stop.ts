/** Ending an instance because somebody wants it: what it is answering may finish first. */
import { fromDuration } from "@warren/common/time";
import type { ExitReason } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { withdraw } from "./endpoints.ts";
import { commandStop } from "./life.ts";
import type { Instance } from "./model.ts";
import { settleQuiet } from "./quiesce.ts";

/** Ends an instance: drains it first if it serves. Asked again, it changes nothing. */
export function beginStop(ctx: Context, instance: Instance, reason: ExitReason): void {
  switch (instance.phase.kind) {
    case "persisting":
      instance.phase.stopRequested ??= reason;
      return;
    case "starting":
    case "unconfirmed":
      commandStop(ctx, instance, reason);
      return;
    case "ready": {
      const drain = fromDuration(
        ctx.state.tenants.get(instance.ref.tenant)?.spec.stop?.drain,
        ctx.config.drainMs,
      );
      instance.phase = { kind: "draining", reason, until: ctx.at.mono + drain };
      withdraw(ctx, instance);
      settleQuiet(ctx, instance);
      return;
    }
    case "draining":
    case "stopping":
      return;
  }
}
