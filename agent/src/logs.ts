/**
 * Output of instances. Each writes to two raw files of its own, opened for append: not to pipes, which would block it
 * when nobody reads and break when the agent dies. The agent takes in what they hold by line, with time and stream, into
 * a copy of bounded size per instance (`logs/copy.ts`), and gives the raw files' space back.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "@warren/common/log";
import { type Clock, systemClock } from "@warren/common/time";
import { makePrivateDirectory, messageOf, removeTree } from "./files.ts";
import type { OpenWatcher } from "./host/fanotify.ts";
import { defaultLogBounds, type LogBounds, type LogStats } from "./logs/bounds.ts";
import { copyBytes } from "./logs/files.ts";
import { InstanceLogs, type LogContext, rawPath } from "./logs/instance.ts";
import { streams } from "./logs/line.ts";
import { Pump } from "./logs/pump.ts";

export { defaultLogBounds, type LogBounds, type LogStats } from "./logs/bounds.ts";
export type { InstanceLogs } from "./logs/instance.ts";

/** The output of all instances of a node, of those that ended a bounded number. */
export class LogStore {
  readonly #context: LogContext;
  readonly #live = new Map<string, InstanceLogs>();
  /** Ended, but not all of their output is in the copy yet. */
  readonly #ending = new Map<string, InstanceLogs>();
  /** Ended ones by tenant, oldest first; of those whose output is all in the copy, how large that is. */
  readonly #ended: { readonly tenant: string; readonly id: string; bytes?: number }[] = [];

  constructor(
    private readonly directory: string,
    readonly bounds: LogBounds = defaultLogBounds,
    private readonly clock: Clock = systemClock,
    canPunch = true,
    opens?: OpenWatcher,
  ) {
    const stats = { readBytes: 0, writtenLines: 0, droppedBytes: 0, cutLines: 0 };
    this.#context = { bounds, clock, stats, canPunch, ...(opens ? { opens } : {}) };
    makePrivateDirectory(directory);
    const found = readdirSync(directory).flatMap((name) => {
      const [tenant, id] = name.split("."); // a tenant's key has no dot
      return tenant && id ? [{ tenant, id }] : [];
    });
    // Ids are ULIDs, so that they sort by time.
    this.#ended.push(...found.sort((a, b) => (a.id < b.id ? -1 : 1)));
  }

  /** The files of an instance that starts or was adopted. */
  open(tenant: string, id: string): InstanceLogs {
    const at = this.#ended.findIndex((one) => one.id === id);
    if (at >= 0) this.#ended.splice(at, 1);
    const logs = new InstanceLogs(this.#directoryOf(tenant, id), this.#context);
    makePrivateDirectory(logs.directory);
    this.#live.set(id, logs);
    return logs;
  }

  /** The output of an instance that lives or ended not long ago. */
  find(id: string): InstanceLogs | undefined {
    const taken = this.#live.get(id) ?? this.#ending.get(id);
    if (taken) return taken;
    const ended = this.#ended.find((one) => one.id === id);
    return ended && new InstanceLogs(this.#directoryOf(ended.tenant, id), this.#context, true);
  }

  /**
   * Nothing of it is left to write. Its output is kept while it is among the last of its tenant.
   * @param remark how it ended, for readers of its output
   */
  ended(tenant: string, id: string, remark?: string): void {
    const logs = this.#live.get(id);
    if (!logs) return;
    this.#live.delete(id);
    logs.end(remark);
    this.#ending.set(id, logs);
    this.#ended.push({ tenant, id });
    this.prune();
  }

  /** Removes what is over the bounds; called once more after adoption, when it is known who lives. */
  prune(): void {
    const { keepPerTenant, keepInAll, keepBytes } = this.bounds;
    const kept = new Map<string, number>();
    let bytes = 0;
    for (let i = this.#ended.length - 1; i >= 0; i--) {
      const { tenant, id } = this.#ended[i]!;
      const count = kept.get(tenant) ?? 0;
      const all = this.#ended.length - i;
      const size = this.#sizeOf(this.#ended[i]!);
      // The newest is kept, however large.
      if (count < keepPerTenant && all <= keepInAll && (all === 1 || bytes + size <= keepBytes)) {
        kept.set(tenant, count + 1);
        bytes += size;
        continue;
      }
      this.#ended.splice(i, 1);
      this.#ending.get(id)?.close();
      this.#ending.delete(id);
      removeTree(this.#directoryOf(tenant, id));
    }
  }

  /** Totals since this agent began, for its metrics. */
  stats(): Readonly<LogStats> {
    return { ...this.#context.stats };
  }

  /**
   * Takes in what instances write, until the signal aborts; to be called once, after adoption. What is not taken in by
   * then, the next agent does.
   */
  async run(signal: AbortSignal, log: Logger): Promise<void> {
    this.#takeUpEnded();
    const failing = new WeakSet<InstanceLogs>();
    const failed = (logs: InstanceLogs, error: unknown) => {
      // Once for each, not once a second.
      if (!failing.has(logs))
        log.warn({ why: messageOf(error), logs: logs.directory }, "an instance's output cannot be read");
      failing.add(logs);
    };
    using pump = new Pump(() => this.#toLookAt(), this.clock, failed);
    try {
      await pump.run(signal);
    } finally {
      for (const logs of [...this.#live.values(), ...this.#ending.values()]) logs.close();
    }
  }

  #sizeOf(ended: { readonly tenant: string; readonly id: string; bytes?: number }): number {
    const directory = this.#directoryOf(ended.tenant, ended.id);
    if (this.#ending.has(ended.id)) return copyBytes(directory);
    ended.bytes ??= copyBytes(directory);
    return ended.bytes;
  }

  #toLookAt(): InstanceLogs[] {
    for (const [id, logs] of this.#ending) if (logs.isOver) this.#ending.delete(id);
    return [...this.#live.values(), ...this.#ending.values()];
  }

  /** Those that ended while the agent before this one did: their last output may still stand in the raw files. */
  #takeUpEnded(): void {
    for (const { tenant, id } of this.#ended) {
      const directory = this.#directoryOf(tenant, id);
      if (this.#ending.has(id) || !streams.some((stream) => existsSync(rawPath(directory, stream)))) continue;
      const logs = new InstanceLogs(directory, this.#context);
      logs.end();
      this.#ending.set(id, logs);
    }
  }

  #directoryOf(tenant: string, id: string): string {
    return join(this.directory, `${tenant}.${id}`);
  }
}
