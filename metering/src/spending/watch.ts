/**
 * Watches limits and budgets against the ledger.
 *
 *  W1  A tenant is looked at only when something of it was posted, when its limits or the plans have changed, and when a
 *      period begins. So the cost of a look is that of the tenants that were used since the last one, not of all there are.
 *  W2  What a tenant used in a period is read from the ledger once, and then kept up to date by what is posted (tally.ts).
 *      Reading and posting take turns: else a posting could be in what was read and be added to it again.
 *  W3  When a batch fails it is not known whether it was committed: all is read anew.
 *  W4  An alert is due until it is marked in the ledger, which happens only after the journal has it.
 */
import type { Clock } from "@warren/common/time";
import { Turn } from "@warren/common/turn";
import type { UsageLimit } from "@warren/proto/common";
import type { Use } from "../billing/catalog.ts";
import { hoursOf, type PeriodName } from "../billing/period.ts";
import { type Plan, type Plans, planOf } from "../billing/plan.ts";
import { nothing } from "../core/meters.ts";
import type { AlertMark, Counting, Ledger } from "../ledger/ledger.ts";
import { type DueAlert, dueAlerts } from "./budgets.ts";
import { type Reached, reachedOf, type WatchedLimit, watched } from "./limits.ts";
import { Tally } from "./tally.ts";

export interface WatchOptions {
  readonly ledger: Ledger;
  /** Nothing where there are none. */
  readonly plans: () => Plans | undefined;
  readonly clock: Clock;
}

/** An alert that the journal is to have. */
export interface Alert extends DueAlert {
  readonly tenant: string;
  readonly plan: string;
  /** Its month. */
  readonly start: number;
  readonly end: number;
}

const periodNames = ["hour", "day", "month"] as const;
/** Tenants asked for at a time when all are looked through. */
const sweepTenants = 1_000;

export class Watch {
  readonly #options: WatchOptions;
  readonly #turn = new Turn();
  #tallies: Readonly<Record<PeriodName, Tally>>;
  #limits: ReadonlyMap<string, readonly WatchedLimit[]> = new Map();
  readonly #reached = new Map<string, readonly Reached[]>();
  /** Tenants whose limits, or whose budget, are to be looked at. */
  readonly #limitsToSee = new Set<string>();
  readonly #budgetsToSee = new Set<string>();
  /** Alerts that are due, by tenant and percent. */
  readonly #due = new Map<string, Alert>();
  /** Those that the journal has, of the running month; nothing before they were read. */
  #marked: Set<string> | undefined;
  /** All tenants after this one are still to be looked through for their budgets; nothing when that is done. */
  #sweepAfter: string | undefined = "";

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#tallies = freshTallies(options.clock.now());
  }

  /** The ledger for whoever counts: what is posted is seen here. */
  counting(): Pick<Ledger, "count" | "position" | "fold"> {
    const { ledger } = this.#options;
    return {
      position: (source) => ledger.position(source),
      fold: () => ledger.fold(),
      count: (source, records) =>
        this.#turn.run(async () => {
          try {
            const counted = await ledger.count(source, records);
            this.#posted(counted);
            return counted;
          } catch (error) {
            this.#readAnew(); // W3
            throw error;
          }
        }),
    };
  }

  /** Which limits there are from now on. @returns how many of them cannot be watched: a newer version's */
  setLimits(limits: readonly { readonly tenant: string; readonly limits: readonly UsageLimit[] }[]): number {
    let unknown = 0;
    const next = new Map<string, readonly WatchedLimit[]>();
    for (const { tenant, limits: all } of limits) {
      const known = all.map(watched).filter((limit) => limit !== undefined);
      unknown += all.length - known.length;
      if (known.length > 0) next.set(tenant, known);
    }
    this.#limits = next;
    this.#reached.clear();
    this.#limitsToSee.clear();
    for (const tenant of next.keys()) this.#limitsToSee.add(tenant);
    return unknown;
  }

  /** The plans have changed: every budget is to be looked at. */
  plansChanged(): void {
    this.#due.clear();
    this.#sweepAfter = "";
  }

  /** Tenants that have limits. */
  get limited(): number {
    return this.#limits.size;
  }

  /** Limits that are reached, as far as the ledger has counted and all was looked at. */
  *reached(): Generator<Reached & { readonly tenant: string }> {
    for (const [tenant, all] of this.#reached) for (const reached of all) yield { tenant, ...reached };
  }

  /** Alerts that the journal is to have. */
  due(most: number): Alert[] {
    return [...this.#due.values()].slice(0, most);
  }

  /** W4: the journal has them. @throws what the ledger throws; they are due again then */
  async mark(alerts: readonly Alert[]): Promise<void> {
    for (const [start, all] of Map.groupBy(alerts, (alert) => alert.start)) {
      await this.#options.ledger.markAlerts(start, all);
      for (const alert of all) {
        if (start === this.#tallies.month.period.start) this.#marked?.add(markOf(alert));
        this.#due.delete(markOf(alert));
      }
    }
  }

  /**
   * Looks at what is to be looked at: limits first, and each of the two for at most `mostMs`; what is left is looked at next
   * time.
   * @throws what the ledger throws
   */
  async look(mostMs: number): Promise<void> {
    this.#roll();
    await this.#within(mostMs, this.#limitsToSee, (tenant) => this.#seeLimits(tenant));
    this.#marked ??= new Set(
      (await this.#options.ledger.alerts(this.#tallies.month.period.start)).map(markOf),
    );
    if (!this.#options.plans()) return;
    const { clock } = this.#options;
    const end = clock.monotonic() + mostMs;
    do {
      await this.#sweep();
      await this.#within(end - clock.monotonic(), this.#budgetsToSee, (tenant) => this.#seeBudget(tenant));
    } while (this.#sweepAfter !== undefined && clock.monotonic() < end);
  }

  /** A period that is over, or before which the clock went back, begins anew. */
  #roll(): void {
    const now = this.#options.clock.now();
    const over = periodNames.filter((name) => !this.#tallies[name].isOf(now));
    if (over.length === 0) return;
    const fresh = freshTallies(now);
    this.#tallies = {
      hour: over.includes("hour") ? fresh.hour : this.#tallies.hour,
      day: over.includes("day") ? fresh.day : this.#tallies.day,
      month: over.includes("month") ? fresh.month : this.#tallies.month,
    };
    for (const [tenant, limits] of this.#limits) {
      if (limits.some(({ period }) => over.includes(period))) this.#limitsToSee.add(tenant);
    }
    if (!over.includes("month")) return;
    this.#marked = undefined;
    this.#due.clear();
    this.#sweepAfter = "";
  }

  async #within(mostMs: number, tenants: Set<string>, see: (tenant: string) => Promise<void>): Promise<void> {
    const { clock } = this.#options;
    const end = clock.monotonic() + mostMs;
    for (const tenant of tenants) {
      tenants.delete(tenant); // before it is seen: what is posted meanwhile brings it back
      try {
        await see(tenant);
      } catch (error) {
        tenants.add(tenant);
        throw error;
      }
      // The file answers at once: calls and the follower must have their turn.
      if (clock.monotonic() > end) return;
      if (tenants.size % 50 === 0) await new Promise((turn) => setImmediate(turn));
    }
  }

  async #seeLimits(tenant: string): Promise<void> {
    const reached: Reached[] = [];
    const limits = this.#limits.get(tenant) ?? [];
    for (const limit of limits) {
      const { period } = this.#tallies[limit.period];
      const found = reachedOf(limit, await this.#use(tenant, limit.period), period);
      if (found) reached.push(found);
    }
    if (this.#limits.get(tenant) !== limits) return; // they have changed meanwhile, and are to be seen again
    if (reached.length > 0) this.#reached.set(tenant, reached);
    else this.#reached.delete(tenant);
  }

  async #seeBudget(tenant: string): Promise<void> {
    const plan = this.#budgeted(tenant);
    if (!plan) return;
    const { start, end } = this.#tallies.month.period;
    const use = await this.#use(tenant, "month");
    if (isUnused(use)) return;
    for (const alert of dueAlerts(plan, use)) {
      const due = { ...alert, tenant, plan: plan.name, start, end };
      if (!this.#marked?.has(markOf(due))) this.#due.set(markOf(due), due);
    }
  }

  /** Looks through all tenants for those with a budget, some at a time: what was posted before we were here is not lost. */
  async #sweep(): Promise<void> {
    if (this.#sweepAfter === undefined || this.#budgetsToSee.size >= sweepTenants) return;
    const after = this.#sweepAfter;
    const tenants = await this.#options.ledger.tenants(after, sweepTenants);
    for (const tenant of tenants) if (this.#budgeted(tenant)) this.#budgetsToSee.add(tenant);
    if (this.#sweepAfter === after) this.#sweepAfter = tenants.at(-1);
  }

  /** W2 */
  #use(tenant: string, period: PeriodName): Promise<Use> | Use {
    return (
      this.#tallies[period].get(tenant) ??
      this.#turn.run(async () => {
        const tally = this.#tallies[period];
        const window = hoursOf(tally.period);
        const [row] = await this.#options.ledger.usage({ tenant, window, cut: "total", limit: 1 });
        const use = row ? { ...row.used, starts: row.starts } : { ...nothing, starts: 0n };
        tally.set(tenant, use);
        return use;
      })
    );
  }

  #posted({ postings }: Counting): void {
    for (const posting of postings) {
      for (const name of periodNames) this.#tallies[name].add(posting);
      if (this.#limits.has(posting.tenant)) this.#limitsToSee.add(posting.tenant);
      if (this.#budgeted(posting.tenant)) this.#budgetsToSee.add(posting.tenant);
    }
  }

  #readAnew(): void {
    for (const name of periodNames) this.#tallies[name].clear();
    for (const tenant of this.#limits.keys()) this.#limitsToSee.add(tenant);
    this.#sweepAfter = "";
  }

  /** Its plan, if that has a budget. */
  #budgeted(tenant: string): Plan | undefined {
    const plans = this.#options.plans();
    const plan = plans && planOf(plans, tenant);
    return plan?.budget ? plan : undefined;
  }
}

const freshTallies = (now: number): Record<PeriodName, Tally> => ({
  hour: Tally.at("hour", now),
  day: Tally.at("day", now),
  month: Tally.at("month", now),
});

const markOf = ({ tenant, percent }: AlertMark): string => `${tenant} ${percent}`;

/** Without any use there is nothing to alert of, whatever the plan's minimum is. */
const isUnused = (use: Use): boolean => Object.values(use).every((value) => value === 0n);
