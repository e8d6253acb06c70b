/**
 * What really is, and whether it may be so: the rules of DESIGN section 5, checked on processes that live, calls that wait
 * and records that were acknowledged. Never on what a core believes.
 */
import { type Account, post } from "@warren/metering/core/account";
import { metersOf } from "@warren/metering/core/meters";
import { Availability, type InstanceRef, InstanceState } from "@warren/proto/common";
import type { NodeRecord } from "@warren/proto/scheduler";
import type { Input } from "@warren/scheduler/core/inputs";
import type { Agent, Decision } from "./agent.ts";
import type { Gateway } from "./gateway.ts";
import type { Host, Process } from "./host.ts";
import type { AgentInstance } from "./instance.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Site } from "./site.ts";

/** A rule is broken. */
export class Violation extends Error {
  override readonly name = "Violation";
  constructor(
    readonly rule: string,
    message: string,
  ) {
    super(`${rule}: ${message}`);
  }
}

interface Asked {
  readonly scheduler: Scheduler;
  readonly what: string;
  answers: number;
  cancelled: boolean;
}

/** The life of a process, for the bill. */
interface Lived {
  readonly ref: InstanceRef;
  readonly spawnedAt: number;
  endedAt: number;
  /** How far its agent may have missed its end: stopped, dead or gone with its disk. */
  blindMs: number;
  /** Its agent's records of it are gone with the disk. */
  isLost: boolean;
}

/** A call without a deadline of its own: the store's time and then some. */
const ownDeadlineMs = 12_000;
/** Ticks come every 50 ms; one more for a core that was asked in between. */
const slackMs = 120;
/** Long ones are looked at twice a second. */
const slowCalls = new Set(["reload", "drain"]);
const slowSlackMs = 620;
/** Between two observations of an instance, and what a stop may take until it is noticed. */
const observationMs = 3_000;

export class Truth {
  /** Processes that live and count. */
  live = 0;
  mostLive = 0;
  /** By tenant and slot. */
  readonly #slots = new Map<string, Set<string>>();
  /** Given up with their node: rules 1 and 2 do not count them, and say how many there were. */
  readonly exempt = new Set<string>();
  readonly #ended = new Map<string, string>();
  readonly lived = new Map<string, Lived>();
  readonly #asked = new Map<string, Asked>();
  /** When a scheduler last heard of a node. */
  readonly #heard = new Map<string, number>();
  /** Places that were given back: what was there must not live. */
  readonly #freed = new Set<string>();
  readonly #leaving = new Set<string>();
  readonly #decided = new Set<string>();
  readonly #slowest = new Map<string, number>();
  readonly #acknowledged = new Map<string, NodeRecord>();
  exemptions = { lost: 0, cutOff: 0 };

  constructor(private readonly site: Site) {}

  fail(rule: string, message: string): never {
    throw new Violation(rule, message);
  }

  // Rules 1, 2 and 5: processes.

  spawned(host: Host, { ref }: Process): void {
    const { id } = ref;
    if (this.#ended.has(id)) this.fail("start", `${id} was started again on ${host.name}`);
    this.lived.set(id, {
      ref,
      spawnedAt: this.site.agenda.now,
      endedAt: Number.NaN,
      blindMs: 0,
      isLost: false,
    });
    if (this.#freed.has(id))
      this.fail("rule 1", `${id} of ${ref.tenant} was started after its place was given back`);
    const slot = slotOf(ref);
    const others = this.#slots.get(slot);
    if (others) {
      if (!this.exempt.has(id)) this.#checkSlot(ref, others);
      others.add(id);
    } else this.#slots.set(slot, new Set([id]));
    if (this.exempt.has(id)) return;
    this.live++;
    this.mostLive = Math.max(this.mostLive, this.live);
    if (this.live > this.site.config.maxConcurrent) {
      this.fail(
        "rule 1",
        `${this.live} live, ${this.site.config.maxConcurrent} allowed, with ${id} of ${ref.tenant} on ${host.name}`,
      );
    }
  }

  /**
   * One beside it, and only where it replaces that one: there is a reason for it, and never of what is at-most-one. Those
   * on their way out do not count, if the tenant bears two at all.
   */
  #checkSlot(ref: InstanceRef, others: ReadonlySet<string>): void {
    const { site } = this;
    const single = site.availabilityOf(ref.tenant) === Availability.AT_MOST_ONE;
    let counted = [...others].filter((id) => !this.exempt.has(id) && (single || !this.#leaving.has(id)));
    // What a leader before was replacing, on a node that has not spoken to this one, is stopped when it does.
    if (counted.length > 1 && !single)
      counted = counted.filter((id) => this.#isHeard(this.lived.get(id)!.ref.node));
    const isLeaving = !single && this.#leaving.has(ref.id);
    if (counted.length === 0 || isLeaving) return;
    const old = this.lived.get(counted[0]!)!.ref;
    // Whichever of the two is older: its start may have taken longer than that of the one that replaces it.
    const reason = site.changed.has(ref.tenant) || site.drained.has(old.node) || site.drained.has(ref.node);
    if (counted.length === 1 && !single && (reason || site.config.rebalance)) return;
    this.fail("rule 2", `${counted.join(" and ")} and ${ref.id} all live for ${slotOf(ref)}`);
  }

  #isHeard(node: string): boolean {
    return this.#heard.has(`${this.site.leader?.name} ${node}`);
  }

  /** It was commanded to stop, or nothing new is to go there: it is on its way out. */
  leaving(id: string): void {
    this.#leaving.add(id);
  }

  /** After all it is to serve on. */
  staying(id: string): void {
    this.#leaving.delete(id);
  }

  ended(host: Host, { ref }: Process): void {
    const { id } = ref;
    this.#ended.set(id, host.name);
    const lived = this.lived.get(id);
    if (lived) lived.endedAt = this.site.agenda.now;
    if (!this.exempt.has(id)) this.live--;
    const slot = slotOf(ref);
    const others = this.#slots.get(slot);
    others?.delete(id);
    if (others?.size === 0) this.#slots.delete(slot);
  }

  /** A scheduler gives its place back: nothing of it may be alive, nor come to life. */
  freed(scheduler: Scheduler, id: string): void {
    this.#freed.add(id);
    const lived = this.lived.get(id);
    if (!lived || !Number.isNaN(lived.endedAt) || this.exempt.has(id)) return;
    this.fail(
      "rule 5",
      `${scheduler.name} gave back the place of ${id} of ${lived.ref.tenant}, which lives on ${lived.ref.node}`,
    );
  }

  /** A scheduler declares a node lost. */
  lost(scheduler: Scheduler, node: string): void {
    const { now } = this.site.agenda;
    const heard = Math.max(this.#heard.get(`${scheduler.name} ${node}`) ?? 0, scheduler.since);
    if (now - heard < scheduler.config.nodeLostMs - slackMs) {
      this.fail(
        "rule 2",
        `${scheduler.name} declared ${node} lost ${Math.round(now - heard)} ms after it had heard of it`,
      );
    }
    // What was placed there, alive or yet to come to life; what is at-most-one waits for proof.
    for (const write of this.site.store.log.values()) {
      if (write.kind !== "placement" || write.ref.node !== node) continue;
      if (this.site.availabilityOf(write.ref.tenant) !== Availability.AT_MOST_ONE) this.#exempt(write.ref.id);
    }
  }

  /** Somebody vouched that a node is gone. */
  forgotten(node: string): void {
    for (const id of this.site.hosts.get(node)?.processes.keys() ?? []) this.#exempt(id);
  }

  #exempt(id: string): void {
    const lived = this.lived.get(id);
    if (this.exempt.has(id) || (lived && !Number.isNaN(lived.endedAt))) return;
    this.exempt.add(id);
    this.exemptions.lost++;
    if (lived) this.live--;
  }

  heard(scheduler: Scheduler, node: string): void {
    this.#heard.set(`${scheduler.name} ${node}`, this.site.agenda.now);
  }

  // Starts are commanded once they are persisted, and never over another one.

  commanded(scheduler: Scheduler, ref: InstanceRef): void {
    if (!this.site.store.placed.has(ref.id))
      this.fail("durable", `${scheduler.name} commanded ${ref.id}, which is not persisted`);
  }

  // Rule 3: what is in use.

  /** A scheduler commands a freeze, or the stop of what is idle. @returns the gateways that it had to reckon with */
  putAwayDecided(scheduler: Scheduler, ref: InstanceRef, how: string): Set<string> {
    const reckoned = new Set<string>();
    // Asked again it is the same decision: what was commanded once cannot be taken back.
    const decision = `${scheduler.name} ${ref.id} ${how}`;
    if (this.#decided.has(decision)) return reckoned;
    this.#decided.add(decision);
    for (const gateway of this.site.gateways.values()) {
      const inFlight = flights(gateway, ref.id);
      if (scheduler.reckonsWith(gateway.id)) {
        reckoned.add(gateway.id);
        if (inFlight > 0) this.#inUse(scheduler.name, ref, how, inFlight, gateway);
      } else if (inFlight > 0) this.exemptions.cutOff++;
    }
    return reckoned;
  }

  /** An agent begins to do it. */
  putAway(agent: Agent, { ref }: AgentInstance, how: string, { reckoned, scheduler }: Decision): void {
    for (const gateway of this.site.gateways.values()) {
      const inFlight = flights(gateway, ref.id);
      if (inFlight === 0 || !reckoned.has(gateway.id)) continue;
      if (scheduler.reckonsWith(gateway.id)) this.#inUse(agent.name, ref, how, inFlight, gateway);
      this.exemptions.cutOff++;
    }
  }

  #inUse(who: string, ref: InstanceRef, how: string, inFlight: number, gateway: Gateway): never {
    const what = `${ref.id} of ${ref.tenant} (${how})`;
    this.fail("rule 3", `${who} puts away ${what} with ${inFlight} requests in flight at ${gateway.name}`);
  }

  // Rule 4: calls.

  asked(scheduler: Scheduler, call: string, input: Input, deadlineMs: number): void {
    const asked: Asked = {
      scheduler,
      what: "kind" in input ? input.kind : input.type,
      answers: 0,
      cancelled: false,
    };
    this.#asked.set(call, asked);
    const late = (): void => {
      this.#asked.delete(call);
      if (asked.answers === 1 || asked.cancelled) return;
      const tenant = "tenant" in input ? ` of ${input.tenant}` : "";
      this.fail(
        "rule 4",
        `${call} (${asked.what}${tenant}) was answered ${asked.answers} times by its deadline`,
      );
    };
    const check = scheduler.whileAlive(late);
    const slack = slowCalls.has(asked.what) ? slowSlackMs : slackMs;
    this.site.agenda.after((deadlineMs || ownDeadlineMs) + slack, () => {
      // One that was stopped meanwhile catches up at its next tick.
      if (scheduler.stopped) check();
      else scheduler.after(slackMs, late);
    });
  }

  answered(scheduler: Scheduler, call: string, how: string): void {
    const asked = this.#asked.get(call);
    if (!asked)
      this.fail(
        "rule 4",
        `${scheduler.name} answered ${call} (${how}), which nobody asked, or which is over`,
      );
    if (asked.cancelled)
      this.fail("rule 4", `${call} (${asked.what}) was answered (${how}) after its caller had gone`);
    if (++asked.answers > 1) this.fail("rule 4", `${call} (${asked.what}) was answered twice, now ${how}`);
  }

  cancelled(call: string): void {
    const asked = this.#asked.get(call);
    if (asked) asked.cancelled = true;
  }

  // Rule 8: records.

  acknowledged(host: Host, record: NodeRecord): void {
    const id = `${host.name}:${host.disk.stream}:${record.seq}`;
    if (this.#acknowledged.has(id)) this.fail("rule 8", `${id} was acknowledged twice`);
    this.#acknowledged.set(id, record);
    if (this.site.store.journal.get(id)?.record !== record) {
      this.fail("rule 8", `${id} was acknowledged, but the journal has it not`);
    }
  }

  /** Its agent does not watch for so long: what ends meanwhile is noticed late. */
  blind(host: Host, ms: number): void {
    for (const id of host.processes.keys()) {
      const lived = this.lived.get(id);
      if (lived) lived.blindMs += ms;
    }
  }

  /** Its agent observes less often. */
  slowed(host: Host, factor: number): void {
    this.#slowest.set(host.name, Math.max(factor, this.#slowest.get(host.name) ?? 1));
  }

  /** Power is off: what its agent had not handed over is gone with the runtime directory. */
  diskLost({ disk, processes }: Host): void {
    const ids = [...processes.keys(), ...disk.records.keys()];
    for (const { what } of disk.spool) {
      if (what.case === "transition" || what.case === "usage") ids.push(what.value.instance?.id ?? "");
    }
    for (const id of ids) {
      const lived = this.lived.get(id);
      if (lived) lived.isLost = true;
    }
  }

  /** The production ledger's own rule, on every record twice: repeats add nothing. */
  #ledger(): { accounts: Map<string, Account>; ends: Map<string, number> } {
    const accounts = new Map<string, Account>();
    const ends = new Map<string, number>();
    const records = [...this.site.store.journal.values()].map(({ record }) => record.what);
    for (const what of records) {
      if (what.case !== "transition" || what.value.to !== InstanceState.EXITED) continue;
      const id = what.value.instance!.id;
      ends.set(id, (ends.get(id) ?? 0) + 1);
    }
    for (const { case: kind, value } of [...records, ...records.toReversed()]) {
      if (kind === undefined || kind === "storage" || !value.instance) continue;
      const { id, tenant } = value.instance;
      const ready = kind === "transition" && value.to === InstanceState.READY;
      const used = value.usage && metersOf(value.usage);
      const outcome = post(
        accounts.get(id),
        { account: id, tenant, created: 0, at: 0, sighting: true, ready, used },
        0,
      );
      if (outcome.kind === "refused") this.fail("rule 8", outcome.reason);
      accounts.set(id, outcome.account);
    }
    return { accounts, ends };
  }

  /** What the ledger makes of the journal, against what really ran. Once all is told. */
  checkBills(): void {
    const { accounts, ends } = this.#ledger();
    for (const [id, lived] of this.lived) {
      if (Number.isNaN(lived.endedAt) || lived.isLost) continue;
      const real = lived.endedAt - lived.spawnedAt;
      const bill = Number(accounts.get(id)?.used.wallMs ?? 0n);
      if ((ends.get(id) ?? 0) !== 1) {
        this.fail(
          "rule 8",
          `the end of ${id} of ${lived.ref.tenant} is in the journal ${ends.get(id) ?? 0} times`,
        );
      }
      if (
        bill > real + 1_000 ||
        real - bill > observationMs * (this.#slowest.get(lived.ref.node) ?? 1) + lived.blindMs + 1_000
      ) {
        this.fail("rule 8", `${id} of ${lived.ref.tenant} ran ${Math.round(real)} ms and is billed ${bill}`);
      }
    }
  }
}

function slotOf(ref: InstanceRef): string {
  return `${ref.tenant}/${ref.slot}`;
}

/** Requests in flight there, but for those of a gateway that takes the instance for asleep: it thaws it for them. */
function flights(gateway: Gateway, instance: string): number {
  const route = gateway.up ? gateway.table.get(instance) : undefined;
  return route && !route.asleep ? route.inFlight : 0;
}
