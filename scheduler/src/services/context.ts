/** What the services stand on. */
import type { EventStyle } from "@warren/common/cloudevents";
import type { Logger } from "@warren/common/log";
import type { Store } from "@warren/store";
import type { Agents } from "../agents.ts";
import type { Engine } from "../engine.ts";
import type { Releases } from "../releases.ts";
import type { StateWriter } from "../state-writer.ts";
import type { Watchers } from "../watchers.ts";

export interface Services {
  readonly engine: Engine;
  readonly store: Store;
  readonly writer: StateWriter;
  readonly releases: Releases;
  readonly watchers: Watchers;
  readonly agents: Agents;
  readonly epoch: bigint;
  readonly version: string;
  /** How events are written. */
  readonly eventStyle: EventStyle;
  readonly log: Logger;
  /** Ends the streams when the scheduler leads no more. */
  readonly stopping: AbortSignal;
  /** A higher epoch than ours was heard of: lead no more. */
  readonly onStale: (error: Error, seen: bigint) => void;
}
