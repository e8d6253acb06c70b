/** What every function of the core works on during one step. */
import type { InstanceRef } from "@warren/proto/common";
import type { CoreConfig } from "./config.ts";
import type { Effect } from "./effects.ts";
import type { Moment, Move, MoveEnd, State } from "./model.ts";

export interface Context {
  readonly state: State;
  readonly config: CoreConfig;
  readonly at: Moment;
  /** Uniform in [0, 1); seeded in tests and the simulator. */
  readonly random: () => number;
  /** A new instance id (ULID). */
  readonly newId: () => string;
  /** Instances that ended in this step: what follows from that is settled at its end (settle.ts). */
  readonly ended: InstanceRef[];
  /** Replacements that ended in this step, likewise. */
  readonly movesEnded: { readonly move: Move; readonly end: MoveEnd }[];
  /** Something may be admitted now that could not before. */
  pumpWanted: boolean;
  /** Names of nodes that have come, or may have room again: what no node could take is tried there. */
  readonly roomOn: Set<string>;
  /** What no node could take is tried everywhere. */
  retryWanted: boolean;
  /** Adds an effect to this step. */
  readonly emit: (effect: Effect) => void;
}

export function count(ctx: Context, name: string, by = 1): void {
  if (by === 0) return;
  ctx.state.counts[name] = (ctx.state.counts[name] ?? 0) + by;
}
