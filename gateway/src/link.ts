/** What the gateway asks of a scheduler: small, so that the rest can be tested without one. */
import type { Credentials } from "@warren/common/rpc/credentials";
import { connectLeader } from "@warren/common/rpc/leader";
import {
  type EnsureResponse,
  SchedulerService,
  type Touched,
  type TrafficRecord,
  type WatchEndpointsResponse,
} from "@warren/proto/scheduler";

/** Failures are ConnectErrors whose code can be believed. */
export interface SchedulerLink {
  /** Answers when the tenant has a ready instance. Aborting detaches this caller only. */
  ensure(tenant: string, options: { signal: AbortSignal; deadlineMs: number }): Promise<EnsureResponse>;
  /** Tells of uses. @returns ids that the scheduler does not know */
  touch(batch: Touched[], options: { deadlineMs: number }): Promise<readonly string[]>;
  /** Tells of traffic; answered once the journal has it. */
  reportTraffic(
    records: readonly TrafficRecord[],
    options: { deadlineMs: number; signal: AbortSignal },
  ): Promise<void>;
  /**
   * Endpoint changes until the signal aborts or the watch breaks. Aborted with DEADLINE_EXCEEDED as its reason, the next
   * watch is made at another scheduler first.
   */
  watch(options: { signal: AbortSignal }): AsyncIterable<WatchEndpointsResponse>;
  close(): void;
}

/** A link over Connect. The watch has a connection of its own: a reset of one must not end the other (FACTS, trap 4). */
export function connectScheduler(options: {
  /** Of schedulers; the leader is found. */
  urls: readonly string[];
  credentials: Credentials;
  /** This gateway's id. */
  gateway: string;
  /** How tenants are reached through it; known once it listens. */
  publicUrl: () => string;
  /** How long a call waits while no scheduler leads. */
  patienceMs: number;
}): SchedulerLink {
  const { urls, credentials, gateway, publicUrl, patienceMs } = options;
  const calls = connectLeader({ urls, credentials, patienceMs });
  const stream = connectLeader({ urls, credentials, patienceMs });
  const scheduler = calls.client(SchedulerService);
  const watcher = stream.client(SchedulerService);
  return {
    ensure: (tenant, { signal, deadlineMs }) =>
      scheduler.ensure({ tenant }, { signal, timeoutMs: deadlineMs }),
    async touch(batch, { deadlineMs }) {
      const answer = await scheduler.touch({ source: gateway, instances: batch }, { timeoutMs: deadlineMs });
      return answer.unknown;
    },
    async reportTraffic(records, { deadlineMs, signal }) {
      await scheduler.reportTraffic({ records: [...records] }, { timeoutMs: deadlineMs, signal });
    },
    watch: ({ signal }) => watcher.watchEndpoints({ gateway, publicUrl: publicUrl() }, { signal }),
    close() {
      calls.close();
      stream.close();
    },
  };
}
