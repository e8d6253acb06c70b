/**
 * What the agent must remember of an instance: one small file each, written before its spawn and at each change, so
 * that the agent that comes after `kill -9` finds every process and goes on with it. Nothing of a tenant's environment
 * is in it.
 */
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { Logger } from "@warren/common/log";
import { type InstanceRef, InstanceRefSchema, Isolation } from "@warren/proto/common";
import type { Ballast } from "./ballast.ts";
import { makePrivateDirectory, messageOf, readIfThere } from "./files.ts";
import type { LivenessPolicy } from "./liveness.ts";
import type { MachineState } from "./machine.ts";
import type { ReadinessSpec } from "./readiness.ts";
import type { Limits } from "./sandbox.ts";
import type { Counters } from "./usage.ts";

/** A process by its name for ever: a pid alone is a stranger's after a while. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTicks: number;
  readonly bootId: string;
}

export interface InstanceRecord {
  readonly version: 1;
  readonly ref: InstanceRef;
  readonly state: MachineState;
  /** Where gateways reach it; absent for loopback. */
  readonly host?: string;
  /** Where it accepts on this host, if not at 127.0.0.1. */
  readonly address?: string;
  /** 0 until it has one. */
  readonly port: number;
  /** Whether the tenant's other instances on this node have the same port. */
  readonly sharesPort: boolean;
  /** The rung of isolation that it runs on. */
  readonly rung: Isolation;
  /** From the rung `user` on: its own, or that of all that share its port. */
  readonly uid?: number;
  /** Name of the program around its command, if there is one. */
  readonly wrapper?: string;
  readonly limits: InstanceLimits;
  /** Path of its cgroup; "" for none. */
  readonly group: string;
  /** Written right after the spawn. A record with a port and without it was in the middle of one. */
  readonly process?: ProcessIdentity;
  /** ms since 1970 */
  readonly startedAt?: number;
  /** From spawn until ready, ms. */
  readonly startDurationMs?: number;
  readonly phases?: StartPhases;
  /** Between SIGTERM and SIGKILL when a stop names none, ms. */
  readonly graceMs: number;
  /** Before SIGTERM, where the agent itself stops it, ms. */
  readonly drainMs?: number;
  /** The tenant said that it is ready, and was told that this was heard. */
  readonly saidReady?: boolean;
  /** When SIGKILL is due, ms on the agent's monotonic clock, once it is being stopped. */
  readonly killBy?: number;
  /** The copies of volumes that it has, and what each may hold, in bytes. */
  readonly volumes?: readonly HeldVolume[];
  readonly readiness: ReadinessSpec;
  readonly liveness?: LivenessPolicy;
  readonly counters: Counters;
}

export interface HeldVolume {
  readonly id: string;
  readonly name: string;
  readonly limitBytes: number;
}

/** What its spec limits; 0 means nothing of its own. */
export interface InstanceLimits extends Limits {
  readonly diskBytes: number;
}

/** Where the time of a start went, ms; as in the contract's StartPhases. */
export interface StartPhases {
  readonly fetchMs: number;
  readonly queueMs: number;
  readonly spawnMs: number;
  readonly listenMs: number;
  readonly answerMs: number;
}

export const noLimits: InstanceLimits = { memoryBytes: 0, cpuMillis: 0, pids: 0, openFiles: 0, diskBytes: 0 };

/** What an agent left when it died. */
export interface Left {
  readonly records: readonly InstanceRecord[];
  /** Ids of records that cannot be read: what may run under them can still be ended. */
  readonly broken: readonly string[];
}

/**
 * Each save is a new file, `<id>.<n>.json`, after which the one before it goes: should the agent die while it writes, the
 * one before is still there. Not one file that is replaced: ext4 writes such a file out to the disk before the rename
 * returns, 2 to 3 ms each, five times a life.
 */
export class RecordStore {
  /** Numbers of the files by id, the newest first: more than one only where the disk was full at {@link load}. */
  readonly #files = new Map<string, readonly number[]>();

  constructor(
    private readonly directory: string,
    private readonly log: Logger,
    /** Gives room when there is none. */
    private readonly ballast?: Ballast,
  ) {
    makePrivateDirectory(directory);
  }

  /** @throws Error of the file system; what was saved before is still there */
  save(record: InstanceRecord): void {
    const { error: _, ...state } = record.state;
    const { id } = record.ref;
    const before = this.#files.get(id) ?? [];
    const next = (before[0] ?? 0) + 1;
    const path = this.#path(id, next);
    const text = JSON.stringify({ ...record, state, ref: plainRef(record.ref) });
    const write = () => writeFileSync(path, text, { mode: 0o600 });
    try {
      if (this.ballast) this.ballast.guard(write);
      else write();
    } catch (error) {
      rmSync(path, { force: true }); // half of it, which nobody would remove
      throw error;
    }
    this.#files.set(id, [next]);
    for (const number of before) rmSync(this.#path(id, number), { force: true });
  }

  remove(id: string): void {
    for (const number of this.#files.get(id) ?? []) rmSync(this.#path(id, number), { force: true });
    this.#files.delete(id);
  }

  /** What an agent before this one left; to be called once. */
  load(): Left {
    const files = new Map<string, number[]>();
    for (const file of readdirSync(this.directory)) {
      const [, id, number] = /^([0-9A-Z]{26})\.(\d+)\.json$/.exec(file) ?? [];
      if (id === undefined) {
        this.log.warn({ file }, "a file among the records is none, and is left alone");
        continue;
      }
      files.set(id, [...(files.get(id) ?? []), Number(number)]);
    }
    const records: InstanceRecord[] = [];
    const broken: string[] = [];
    for (const [id, numbers] of files) {
      const found = numbers
        .sort((a, b) => b - a)
        .values()
        .map((number) => this.#read(id, number))
        .find((record) => record !== undefined);
      if (found) records.push(found);
      else broken.push(id);
      // What is saved next must be newer than the newest, also than one that was half written.
      this.#files.set(id, numbers);
      if (found) this.#saveAgain(found);
    }
    return { records, broken };
  }

  /** On a full disk what was read is enough: the files stay, and go at the next save that succeeds. */
  #saveAgain(record: InstanceRecord): void {
    try {
      this.save(record);
    } catch (error) {
      this.log.error({ instance: record.ref.id, why: messageOf(error) }, "a record cannot be written anew");
    }
  }

  #read(id: string, number: number): InstanceRecord | undefined {
    try {
      return parseRecord(readIfThere(this.#path(id, number)) ?? "");
    } catch (error) {
      this.log.error({ instance: id, why: messageOf(error) }, "an instance's record cannot be read");
      return undefined;
    }
  }

  #path(id: string, number: number): string {
    return join(this.directory, `${id}.${number}.json`);
  }
}

/** A ref as plain JSON: its generation and its version are 64 bits wide. */
export function plainRef(ref: InstanceRef): Record<string, unknown> {
  const { id, tenant, slot, release, node } = ref;
  const [generation, specVersion] = [String(ref.generation), String(ref.specVersion)];
  return { id, tenant, slot, release, node, generation, specVersion };
}

export function parseRef(value: unknown): InstanceRef {
  const { id, tenant, slot, generation, release, node, specVersion } = value as Record<string, unknown>;
  return create(InstanceRefSchema, {
    id: String(id),
    tenant: String(tenant),
    slot: Number(slot),
    generation: BigInt(String(generation)),
    release: String(release),
    node: String(node),
    specVersion: BigInt(String(specVersion ?? 0)),
  });
}

/** @throws Error saying what is wrong with it */
export function parseRecord(text: string): InstanceRecord {
  const value = JSON.parse(text) as InstanceRecord;
  if (value.version !== 1) throw new Error(`its version is ${value.version}, not 1`);
  const missing = (["state", "port", "group", "graceMs", "readiness", "counters", "ref"] as const).filter(
    (key) => value[key] === undefined,
  );
  if (missing.length > 0) throw new Error(`it lacks ${missing.join(", ")}`);
  // Fields that the first version did not have yet.
  const later = { sharesPort: false, rung: Isolation.NONE, limits: noLimits };
  const state = Object.assign({ activity: "running", wakes: 0 }, value.state);
  const counters = { ...value.counters, thaws: value.counters.thaws ?? 0 };
  return { ...later, ...value, state, counters, ref: parseRef(value.ref) };
}
