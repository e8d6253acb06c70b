/**
 * Which processes belong to an instance. Never by pid alone: a process is named by pid and start time, and belongs to
 * an instance when it is in its cgroup, has its uid, carries its id in the environment, descends from one that does, or
 * is in the session that its main process leads. Any one of these is enough, so that a double fork, `setsid` or a wiped
 * environment alone does not hide it. From the rung `user` on nothing does: no process can leave its uid.
 */
import { isAlive, type Kernel, type Stat } from "./host/kernel.ts";

/** What is known of an instance's processes. */
export interface Identity {
  /** Instance's id, as its processes carry it in WARREN_INSTANCE. */
  readonly id: string;
  /** Its first process, once spawned. */
  readonly main?: { readonly pid: number; readonly startTicks: number };
  /** The user id that is its own, if it has one. */
  readonly uid?: number;
  /** Pids in its cgroup, as read just now. */
  readonly group?: readonly number[];
  /** Start times by pid of those seen before; kept up by {@link Snapshot.membersOf}. */
  readonly seen: Map<number, number>;
}

/** Of those seen before, at most this many are remembered per instance. */
const seenBound = 4096;

/** What is read of a process once. */
interface Owner {
  readonly startTicks: number;
  /** WARREN_INSTANCE; "" for one that is nobody's, undefined while that cannot be told. */
  readonly instance: string | undefined;
  readonly uid: number | undefined;
}

export class ProcessTable {
  /**
   * By pid. Belonging is only ever inherited, and no tenant's process can change its uid, so that no answer can become
   * wrong while pid and start time stay the same.
   */
  #owners = new Map<number, Owner>();

  /** @param tenantUids uids of isolated tenants: what their environment says is not believed, they are known by uid */
  constructor(
    readonly kernel: Kernel,
    private readonly tenantUids: { readonly from: number; readonly to: number } = { from: 0, to: -1 },
  ) {}

  #next: Promise<Snapshot> | undefined;

  /**
   * A look that begins after this call. Those who ask in one turn of the event loop share it: of a hundred instances
   * that are stopped at once, not each reads the whole table.
   */
  fresh(): Promise<Snapshot> {
    this.#next ??= new Promise((resolve, reject) => {
      setImmediate(() => {
        this.#next = undefined;
        try {
          resolve(this.snapshot());
        } catch (error) {
          reject(error);
        }
      });
    });
    return this.#next;
  }

  /** All processes as they are now; about 10 µs each. */
  snapshot(): Snapshot {
    const stats = new Map<number, Stat>();
    for (const stat of this.kernel.list()) stats.set(stat.pid, stat);
    const owners = new Map<number, Owner>();
    const owned = new Map<string, Stat[]>();
    const byUid = new Map<number, Stat[]>();
    for (const stat of stats.values()) {
      if (stat.pid === process.pid || stat.ppid === 2 || stat.pid === 2) continue; // ourselves; kernel threads
      const known = this.#owners.get(stat.pid);
      const entry = known?.startTicks === stat.startTicks ? known : this.#ownerOf(stat);
      if (entry.instance !== undefined) owners.set(stat.pid, entry);
      if (entry.instance) push(owned, entry.instance, stat);
      if (entry.uid !== undefined) push(byUid, entry.uid, stat);
    }
    this.#owners = owners;
    return new Snapshot(stats, owned, byUid);
  }

  #ownerOf({ pid, startTicks }: Stat): Owner {
    const { kernel } = this;
    const uid = kernel.uid(pid);
    const isTenants = uid !== undefined && uid >= this.tenantUids.from && uid <= this.tenantUids.to;
    return { startTicks, instance: isTenants ? "" : kernel.environ(pid, "WARREN_INSTANCE"), uid };
  }
}

export class Snapshot {
  readonly #children = new Map<number, Stat[]>();
  readonly #sessions = new Map<number, Stat[]>();

  constructor(
    readonly stats: ReadonlyMap<number, Stat>,
    readonly owned: ReadonlyMap<string, readonly Stat[]>,
    readonly byUid: ReadonlyMap<number, readonly Stat[]>,
  ) {
    for (const stat of stats.values()) {
      push(this.#children, stat.ppid, stat);
      push(this.#sessions, stat.session, stat);
    }
  }

  /** The instance's live processes; what is found is remembered in `identity.seen`. */
  membersOf(identity: Identity): Stat[] {
    return this.processesOf(identity).filter(isAlive);
  }

  /** And those that have ended and that nobody looked after yet: what they used is still theirs alone. */
  processesOf(identity: Identity): Stat[] {
    const found = new Map<number, Stat>();
    const queue: Stat[] = [];
    const add = (stat: Stat | undefined) => {
      if (!stat || stat.pid === process.pid || found.has(stat.pid)) return;
      found.set(stat.pid, stat);
      queue.push(stat);
    };
    const { main } = identity;
    const leader = main && this.stats.get(main.pid);
    if (main && leader?.startTicks === main.startTicks) {
      add(leader);
      // Only while its leader is there: a session of that number may be a stranger's later.
      for (const stat of this.#sessions.get(main.pid) ?? []) add(stat);
    }
    for (const pid of identity.group ?? []) add(this.stats.get(pid));
    for (const stat of this.owned.get(identity.id) ?? []) add(stat);
    for (const stat of (identity.uid !== undefined && this.byUid.get(identity.uid)) || []) add(stat);
    for (const [pid, startTicks] of identity.seen) {
      const stat = this.stats.get(pid);
      if (stat?.startTicks === startTicks) add(stat);
      else identity.seen.delete(pid);
    }
    for (let stat = queue.pop(); stat; stat = queue.pop()) {
      for (const child of this.#children.get(stat.pid) ?? []) add(child);
    }
    const all = [...found.values()];
    for (const stat of all) {
      if (identity.seen.size >= seenBound) break;
      if (isAlive(stat)) identity.seen.set(stat.pid, stat.startTicks);
    }
    return all;
  }
}

function push<K>(map: Map<K, Stat[]>, key: K, stat: Stat): void {
  const list = map.get(key);
  if (list) list.push(stat);
  else map.set(key, [stat]);
}
