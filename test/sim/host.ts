/**
 * A host: its processes, which are the truth that everything is checked against, and what its agent keeps on a disk that
 * is gone with the boot.
 */
import { type InstanceRecord, noLimits } from "@warren/agent/records";
import { noCounters } from "@warren/agent/usage";
import { type Instance, type InstanceRef, Isolation, ReadinessKind } from "@warren/proto/common";
import type { NodeRecord } from "@warren/proto/scheduler";

/** How the tenant's code behaves. */
export type Behaviour =
  | "good"
  /** Dies before it is ready. */
  | "crashes"
  /** Never becomes ready. */
  | "hangs"
  /** Dies a while after it was ready. */
  | "dies"
  /** Ends with code 0 a while after it was ready. */
  | "ends"
  /** Ignores SIGTERM. */
  | "stubborn"
  /** Its agent cannot prepare it; another might. */
  | "refused"
  /** Cannot be run anywhere. */
  | "unstartable";

/** A process of a tenant. It is alive as long as it is in its host's `processes`. */
export interface Process {
  readonly ref: InstanceRef;
  readonly behaviour: Behaviour;
  readonly spawnedAt: number;
  readonly port: number;
  frozen: boolean;
  /** Requests that it is answering. */
  connections: number;
}

export class Disk {
  readonly records = new Map<string, InstanceRecord>();
  readonly ended = new Map<string, Instance | undefined>();
  readonly stream: string;
  spool: NodeRecord[] = [];
  nextSeq = 1n;
  epoch = 0n;

  constructor(stream: string) {
    this.stream = stream;
  }
}

export class Host {
  readonly processes = new Map<string, Process>();
  boot = 1;
  disk: Disk;
  powered = true;

  constructor(readonly name: string) {
    this.disk = new Disk(`${name}-1`);
  }

  get bootId(): string {
    return `${this.name}-boot${this.boot}`;
  }

  /** The next boot knows nothing of the one before. */
  reboot(): void {
    this.boot++;
    this.powered = true;
    this.disk = new Disk(`${this.name}-${this.boot}`);
  }
}

export function newRecord(
  ref: InstanceRef,
  state: InstanceRecord["state"],
  graceMs: number,
  drainMs: number,
  wall: number,
): InstanceRecord {
  return {
    version: 1,
    ref,
    state,
    port: 0,
    sharesPort: false,
    rung: Isolation.NONE,
    limits: noLimits,
    group: "",
    graceMs,
    drainMs,
    readiness: { kind: ReadinessKind.PORT, path: "", status: 0, timeoutMs: 0 },
    counters: noCounters(wall),
  };
}
