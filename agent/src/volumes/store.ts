/**
 * Volumes on this node: directories of tenants that outlive their instances, on a disk that outlives the host's boot. Each
 * copy has a directory `<tenant>.<name>.<id>` with its files in `data` and what it has held so far in `volume.json`.
 *
 *  V1  A copy is held by one instance at a time, or by one piece of work on it (a backup, its removal).
 *  V2  A copy goes only when the scheduler says so by its id: never with an instance, and never because it is unknown.
 *  V3  Where a copy is missing that was there before, nothing is started, rather than with an empty one.
 *  V4  What it has held only grows: it is written down each minute, and goes on over agents and boots.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { create, fromJsonString, toJsonString } from "@bufbuild/protobuf";
import type { Logger } from "@warren/common/log";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { type Clock, fromTimestamp, pause, toTimestamp } from "@warren/common/time";
import { type StorageReport, StorageReportSchema } from "@warren/proto/common";
import { type DiskUse, diskUse } from "../disk.ts";
import { messageOf, readIfThere, removeTree, writeWhole } from "../files.ts";
import { SpawnError } from "../spawn.ts";

export interface VolumeStoreOptions {
  readonly directory: string;
  readonly node: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Told what each copy holds, about once in `everyMs`. */
  readonly report: (report: StorageReport) => void;
  readonly everyMs: number;
}

/** A copy that is to be had. */
export interface WantedCopy {
  readonly tenant: string;
  readonly name: string;
  readonly id: string;
  /** It was made before: see V3. */
  readonly mustExist: boolean;
}

/** Who has a copy. */
interface Holder {
  /** An instance's id, or what is done with it. */
  readonly who: string;
  readonly isInstance: boolean;
  /** Ends what gives way to an instance that starts, and resolves when it has. */
  readonly giveWay?: () => Promise<void>;
}

/** A copy that something is done with while no instance has it. */
export interface Hold {
  /** Aborts when an instance is to have it. */
  readonly signal: AbortSignal;
  release(): void;
}

interface Copy {
  readonly tenant: string;
  readonly name: string;
  readonly id: string;
  readonly path: string;
  use: DiskUse;
  /** As of when, ms since 1970. */
  at: number;
  /** What it has held, in bytes times milliseconds. */
  byteMs: bigint;
  /** It may have changed since it was measured. */
  isStale: boolean;
  /** How long the last measurement took, and when it was (monotonic ms). */
  tookMs: number;
  measuredAt: number;
}

/** Files of one volume that are looked at: more cannot be held to a limit. 3 s of the file system's threads. */
const mostEntries = 200_000;
/** A measurement that takes long is made less often: it may have this share of the time. */
const measuringShare = 0.05;

/** Of a directory that is being filled or removed: what an agent that died left of it goes. */
const halfMark = ".half.";

/** Others may pass through it, to what is theirs below. */
const passable = 0o711;

export class VolumeStore {
  readonly #options: VolumeStoreOptions;
  readonly #copies = new Map<string, Copy>();
  readonly #holders = new Map<string, Holder>();
  readonly #stopped = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: VolumeStoreOptions) {
    this.#options = options;
    if (!existsSync(options.directory)) return; // made with the first volume
    for (const name of readdirSync(options.directory)) this.#find(name);
  }

  /** Once those that were adopted have what they had. */
  start(): void {
    for (const [id, copy] of this.#copies) if (!this.#holders.has(id)) this.#close(copy);
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
    for (const copy of this.#copies.values()) this.#save(copy);
  }

  /** All copies as they stand. */
  list(): StorageReport[] {
    return [...this.#copies.values()].map((copy) => this.#describe(copy));
  }

  has(id: string): boolean {
    return this.#copies.has(id);
  }

  /** Where the files of a copy are. @throws ConnectError FAILED_PRECONDITION */
  dataOf(id: string): string {
    const copy = this.#copies.get(id);
    if (!copy) throw rpcError(Code.FailedPrecondition, `volume ${id} is not on this node`);
    return join(copy.path, "data");
  }

  /**
   * Gives a copy to an instance, making it if it was never made.
   * @returns where its files are
   * @throws SpawnError when it is missing or over its size, ConnectError ABORTED while another one has it
   */
  async take(wanted: WantedCopy, limitBytes: number, instance: string): Promise<string> {
    const { tenant, name, id } = wanted;
    await this.#holders.get(id)?.giveWay?.();
    const holder = this.#holders.get(id)?.who;
    if (holder !== undefined && holder !== instance)
      throw rpcError(Code.Aborted, `volume ${name} of tenant ${tenant} is still in use (${holder})`);
    this.#holders.set(id, { who: instance, isInstance: true });
    try {
      return await this.#takeHeld(wanted, limitBytes);
    } catch (error) {
      this.release(id, instance);
      throw error;
    }
  }

  async #takeHeld({ mustExist, ...wanted }: WantedCopy, limitBytes: number): Promise<string> {
    const { tenant, name, id } = wanted;
    if (!this.#copies.has(id)) {
      if (mustExist) {
        throw new SpawnError(
          `volume ${name} lay on this node as ${id} and is not in ${this.#options.directory}: bring its disk back (was --volumes-dir changed?), or 'warren volumes restore ${tenant} ${name}'`,
        );
      }
      this.#make(wanted);
    }
    const copy = this.#copies.get(id)!;
    copy.isStale = true;
    chmodSync(copy.path, passable);
    const over = overSize(name, await this.measure(id), limitBytes);
    if (over !== undefined) throw new SpawnError(`${over}: raise its size in the spec`);
    this.#options.report(this.#describe(copy)); // so that it is known at once where it lies
    return join(copy.path, "data");
  }

  /** An instance that was adopted goes on having it. */
  adopt(id: string, instance: string): void {
    this.#holders.set(id, { who: instance, isInstance: true });
    const copy = this.#copies.get(id);
    if (copy) copy.isStale = true;
  }

  release(id: string, instance: string): void {
    if (this.#holders.get(id)?.who !== instance) return;
    this.#holders.delete(id);
    const copy = this.#copies.get(id);
    if (!copy) return;
    this.#close(copy);
    // What its last instance wrote is counted, and told at once.
    if (!this.#stopped.signal.aborted) void this.#measureAndReport(id);
  }

  /** While nobody has it nobody gets in: its last instance's uid will be another tenant's. */
  #close({ path, id }: Copy): void {
    try {
      chmodSync(path, 0o700);
    } catch (error) {
      this.#options.log.error({ volume: id, err: error }, "a volume could not be closed to other users");
    }
  }

  /** Whether an instance has it. */
  isLive(id: string): boolean {
    return this.#holders.get(id)?.isInstance === true;
  }

  /** For work that gives way to an instance that starts. @throws ConnectError FAILED_PRECONDITION (V1) */
  hold(id: string, what: string): Hold {
    const wanted = new AbortController();
    const done = Promise.withResolvers<void>();
    const giveWay = () => {
      wanted.abort();
      return done.promise;
    };
    const release = this.#hold(id, { who: what, isInstance: false, giveWay });
    const copy = this.#copies.get(id);
    if (copy) chmodSync(copy.path, passable);
    return {
      signal: wanted.signal,
      release: () => {
        if (copy) this.#close(copy);
        release();
        done.resolve();
      },
    };
  }

  /** Does something with a copy while nobody has it. @throws ConnectError FAILED_PRECONDITION (V1) */
  async #withHeld<T>(id: string, what: string, run: () => Promise<T>): Promise<T> {
    const release = this.#hold(id, { who: what, isInstance: false });
    try {
      return await run();
    } finally {
      release();
    }
  }

  #hold(id: string, holder: Holder): () => void {
    const other = this.#holders.get(id)?.who;
    if (other !== undefined)
      throw rpcError(Code.FailedPrecondition, `volume ${id} is in use on this node (${other})`);
    this.#holders.set(id, holder);
    return () => {
      this.#holders.delete(id);
    };
  }

  /** What it holds; as it was measured last where it has not changed, or measuring it takes long. */
  async measure(id: string): Promise<DiskUse> {
    const copy = this.#copies.get(id);
    if (!copy) return { bytes: 0, entries: 0, isMore: false };
    const { monotonic } = this.#options.clock;
    const isHeld = this.#holders.has(id);
    const isDue = monotonic() - copy.measuredAt >= copy.tookMs / measuringShare;
    if (!copy.isStale && !(isHeld && isDue)) return copy.use;
    const began = monotonic();
    copy.isStale = false;
    const use = await diskUse(join(copy.path, "data"), mostEntries);
    copy.measuredAt = monotonic();
    copy.tookMs = copy.measuredAt - began;
    this.#integrate(copy);
    copy.use = use;
    return use;
  }

  /** V2. @throws ConnectError FAILED_PRECONDITION while it is in use */
  async remove(id: string): Promise<void> {
    const copy = this.#copies.get(id);
    if (!copy) return;
    await this.#withHeld(id, "its removal", async () => {
      this.#integrate(copy);
      // First: half of it must not pass for a volume when the agent dies meanwhile; the next one goes on.
      const going = join(this.#options.directory, `${halfMark}${id}`);
      await rename(copy.path, going);
      this.#copies.delete(id);
      await rm(going, { recursive: true, force: true });
      this.#options.report({ ...this.#describe(copy), usedBytes: 0n, removed: true });
    });
  }

  /**
   * Makes a copy of what `fill` puts into its directory; nothing of it is there when that fails.
   * @returns bytes that it holds
   */
  async restore(
    wanted: Omit<WantedCopy, "mustExist">,
    fill: (data: string) => Promise<void>,
  ): Promise<number> {
    const { id } = wanted;
    if (!this.#copies.has(id)) {
      await this.#withHeld(id, "its restoring", async () => {
        const half = join(this.#options.directory, `${halfMark}${id}`);
        await rm(half, { recursive: true, force: true });
        this.#makeDirectories(half);
        try {
          await fill(join(half, "data"));
          const copy = this.#new(wanted);
          this.#write(copy, half);
          await rename(half, copy.path);
          this.#copies.set(id, copy);
        } catch (error) {
          await rm(half, { recursive: true, force: true });
          throw error;
        }
      });
    }
    return (await this.measure(id)).bytes;
  }

  async #run(): Promise<void> {
    const { everyMs } = this.#options;
    const { signal } = this.#stopped;
    for (const copy of this.#copies.values()) copy.isStale = true; // since the agent before measured it
    while (!signal.aborted) {
      await pause(everyMs, signal);
      for (const id of [...this.#copies.keys()]) {
        if (signal.aborted) return;
        await this.#measureAndReport(id);
      }
    }
  }

  async #measureAndReport(id: string): Promise<void> {
    try {
      await this.measure(id);
    } catch (error) {
      this.#options.log.warn({ volume: id, err: error }, "a volume could not be measured");
    }
    const copy = this.#copies.get(id);
    if (!copy) return;
    this.#integrate(copy);
    this.#save(copy);
    this.#options.report(this.#describe(copy));
  }

  #make(wanted: Omit<WantedCopy, "mustExist">): void {
    const copy = this.#new(wanted);
    try {
      this.#makeDirectories(copy.path);
      this.#write(copy);
      this.#copies.set(copy.id, copy);
    } catch (error) {
      throw new Error(
        `volume ${wanted.name} cannot be made in ${this.#options.directory}: ${messageOf(error)}; give the agent another --volumes-dir`,
      );
    }
  }

  /** Only `data` is a tenant's, and reached only while one has it. */
  #makeDirectories(path: string): void {
    mkdirSync(this.#options.directory, { recursive: true, mode: passable });
    for (const made of [path, join(path, "data")]) mkdirSync(made, { recursive: true, mode: 0o700 });
  }

  #new({ tenant, name, id }: Omit<WantedCopy, "mustExist">): Copy {
    const path = join(this.#options.directory, `${tenant}.${name}.${id}`);
    const use = { bytes: 0, entries: 0, isMore: false };
    const at = this.#options.clock.now();
    return { tenant, name, id, path, use, at, byteMs: 0n, isStale: true, tookMs: 0, measuredAt: 0 };
  }

  /** What an agent before this one made. */
  #find(name: string): void {
    const path = join(this.#options.directory, name);
    try {
      if (name.startsWith(halfMark)) {
        removeTree(path);
        return;
      }
      const text = readIfThere(join(path, "volume.json"));
      // Nothing was ever started with one that has none: the start that is asked for again makes it whole.
      if (text === undefined || !statSync(join(path, "data")).isDirectory()) return;
      const report = fromJsonString(StorageReportSchema, text, { ignoreUnknownFields: true });
      this.#copies.set(report.volume, {
        tenant: report.tenant,
        name: report.name,
        id: report.volume,
        path,
        use: { bytes: Number(report.usedBytes), entries: 0, isMore: false },
        at: fromTimestamp(report.at, this.#options.clock.now()),
        byteMs: report.byteSeconds * 1_000n,
        isStale: true,
        tookMs: 0,
        measuredAt: 0,
      });
    } catch (error) {
      this.#options.log.error({ path, err: error }, "a volume cannot be read; it is left as it is");
    }
  }

  /** Up to now it held what was measured last. */
  #integrate(copy: Copy): void {
    const now = this.#options.clock.now();
    if (now > copy.at) copy.byteMs += BigInt(copy.use.bytes) * BigInt(Math.round(now - copy.at));
    copy.at = now;
  }

  #describe({ tenant, name, id, use, at, byteMs }: Copy): StorageReport {
    return create(StorageReportSchema, {
      volume: id,
      tenant,
      name,
      node: this.#options.node,
      at: toTimestamp(at),
      usedBytes: BigInt(use.bytes),
      byteSeconds: byteMs / 1_000n,
    });
  }

  #write(copy: Copy, directory = copy.path): void {
    writeWhole(join(directory, "volume.json"), toJsonString(StorageReportSchema, this.#describe(copy)));
  }

  #save(copy: Copy): void {
    try {
      this.#write(copy);
    } catch (error) {
      // A full disk. What it held until then is told the scheduler all the same.
      this.#options.log.warn(
        { volume: copy.id, err: error },
        "what a volume has held cannot be written down",
      );
    }
  }
}

/** Why a volume is over its size, or undefined. */
export function overSize(name: string, { bytes, isMore }: DiskUse, limitBytes: number): string | undefined {
  if (bytes > limitBytes) return `its volume ${name} holds ${bytes} bytes, and its size is ${limitBytes}`;
  if (!isMore) return undefined;
  return `its volume ${name} cannot be held to its size: it has more than ${mostEntries} files, or some so deep or so closed that they cannot be looked at`;
}
