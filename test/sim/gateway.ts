/**
 * One gateway: the production table (gateway/src/table.ts) in a model of its watcher, toucher, wakes and dispatch. Requests
 * are real in this sense: each is at one process from its beginning to its end.
 */

import type { Route } from "@warren/gateway/route";
import { EndpointTable } from "@warren/gateway/table";
import type { EnsureResponse, Touched, WatchEndpointsResponse } from "@warren/proto/scheduler";
import { Actor } from "./actor.ts";
import type { Rng } from "./rng.ts";
import type { Rpc, Scheduler, Watch } from "./scheduler.ts";
import type { Site } from "./site.ts";

const touchEveryMs = 250;
const touchDeadlineMs = 2_000;
const maxBatch = 1_000;
const silenceMs = 7_000;
const absenceMs = 5_000;
const holdMs = 30_000;
const maxTries = 4;

/** What became of a request. */
export type Served = "served" | "broken" | "refused";

interface Wake {
  readonly waiting: ((route: Route | undefined, why?: "refused" | "cut-off") => void)[];
}

export class Gateway extends Actor {
  table: EndpointTable;
  id = "";
  target: Scheduler | undefined;
  readonly #rng: Rng;
  #starts = 0;
  #watch: Watch | undefined;
  #heard = 0;
  #touching = false;
  #urgent = false;
  #touchFailures = 0;
  #wakes = new Map<string, Wake>();
  #thawing = new Set<string>();

  constructor(
    private readonly site: Site,
    name: string,
  ) {
    super(name, site.agenda);
    this.#rng = site.rng.fork(`gateway ${name}`);
    this.table = new EndpointTable({ monotonic: () => this.agenda.now });
    this.start();
  }

  start(): void {
    this.up = true;
    this.id = `${this.name}-${++this.#starts}`;
    this.table = new EndpointTable({ monotonic: () => this.agenda.now });
    this.#watch = undefined;
    this.#touching = false;
    this.#urgent = false;
    this.#touchFailures = 0;
    this.#wakes = new Map();
    this.#thawing = new Set();
    this.#connect();
    this.every(touchEveryMs, () => this.#touch());
    this.every(500, () => {
      if (this.#watch && this.agenda.now - this.#heard > silenceMs) this.#cut();
    });
  }

  override crash(): void {
    this.#watch = undefined; // its scheduler notices by itself
    super.crash();
  }

  /** Whether a watch stands. */
  get watching(): boolean {
    return this.#watch !== undefined;
  }

  /** A request of a client, which holds its instance for `ms` once it is there. */
  request(tenant: string, ms: number, done: (served: Served) => void): void {
    this.deliver(() => this.#dispatch(tenant, ms, this.agenda.now + holdMs, 1, done));
  }

  // dispatch.ts

  #dispatch(
    tenant: string,
    ms: number,
    deadline: number,
    attempt: number,
    done: (served: Served) => void,
  ): void {
    const route = this.table.pick(tenant);
    if (route) {
      this.#send(route, ms, deadline, attempt, done);
      return;
    }
    this.#wake(tenant, (woken, why) => {
      if (woken?.standing === "open") {
        this.#send(woken, ms, deadline, attempt, done);
      } else if (why === "cut-off") {
        const known = this.table.pick(tenant, true);
        if (known) this.#send(known, ms, deadline, attempt, done);
        else done("refused");
      } else if (why === "refused" || this.agenda.now >= deadline) {
        done("refused");
      } else {
        this.after(this.#rng.between(1, 100), () => this.#dispatch(tenant, ms, deadline, attempt, done));
      }
    });
  }

  #send(route: Route, ms: number, deadline: number, attempt: number, done: (served: Served) => void): void {
    const { table } = this;
    table.begin(route);
    const end = (): void => {
      if (table.end(route)) this.#hurry();
    };
    const process = this.site.reach(this, route.node, route.id, route.port);
    if (!process) {
      // Refused, or nobody there.
      this.after(this.#rng.between(0.2, 2), () => {
        end();
        table.suspect(route);
        if (attempt >= maxTries || this.agenda.now >= deadline) done("refused");
        else {
          this.after(10 * 5 ** (attempt - 1), () =>
            this.#dispatch(route.tenant, ms, deadline, attempt + 1, done),
          );
        }
      });
      return;
    }
    process.connections++;
    const over = this.agenda.now + ms;
    const born = this.#starts;
    const leave = this.whileAlive((served: Served) => {
      end();
      done(served);
    });
    // Written first, thawed second, whether it sleeps or is only said to.
    if (route.asleep) this.#thaw(route);
    // Looked at now and then: a request at a process that dies is broken.
    const look = (): void => {
      if (!this.site.isAlive(route.node, process)) leave("broken");
      else if (process.frozen && this.up && this.#starts === born) {
        // It was written all the same: the kernel keeps it until the instance is thawed.
        this.#thaw(route);
        this.agenda.after(20, look);
      } else if (this.agenda.now >= over || !this.up || this.#starts !== born) {
        process.connections--;
        leave("served");
      } else this.agenda.after(Math.min(over - this.agenda.now, 200), look);
    };
    this.agenda.after(process.frozen ? 0 : Math.min(ms, 200), look);
  }

  /** Waking needs no decision: its agent is asked directly, scheduler up or down. */
  #thaw({ id, node }: Route): void {
    const agent = this.site.agents.get(node);
    if (!agent || this.#thawing.has(id)) return;
    this.#thawing.add(id);
    this.site.net.call<unknown>(
      this,
      agent,
      2_000,
      (reply) => reply(agent.thawInstance(id)),
      () => this.#thawing.delete(id),
    );
  }

  // wakes.ts

  #wake(tenant: string, done: Wake["waiting"][number]): void {
    const running = this.#wakes.get(tenant);
    if (running) {
      running.waiting.push(done);
      return;
    }
    const wake: Wake = { waiting: [done] };
    this.#wakes.set(tenant, wake);
    this.#ensure(tenant, wake, this.agenda.now, 0);
  }

  #ensure(tenant: string, wake: Wake, since: number, attempt: number): void {
    const settle = (route: Route | undefined, why?: "refused" | "cut-off"): void => {
      this.#wakes.delete(tenant);
      for (const waiting of wake.waiting) waiting(route, why);
    };
    const asked = this.table.tick;
    const scheduler = this.target;
    const failed = (): void => {
      this.target = this.site.lookUp(this.target, this.#rng);
      if (this.agenda.now - since >= absenceMs || this.table.pick(tenant, true)) {
        settle(undefined, "cut-off");
        return;
      }
      const wait = Math.min(500, 50 * 2 ** attempt) * this.#rng.between(0.5, 1);
      this.after(wait, () => this.#ensure(tenant, wake, since, attempt + 1));
    };
    if (!scheduler) {
      failed();
      return;
    }
    this.site.net.call<Rpc<EnsureResponse>>(
      this,
      scheduler,
      holdMs,
      (reply) => scheduler.ensure(tenant, holdMs, reply),
      (answer) => {
        if (!answer) failed();
        else if ("ok" in answer) settle(this.table.learn(answer.ok, asked));
        else settle(undefined, "refused");
      },
    );
  }

  // toucher.ts

  #hurry(): void {
    this.#urgent = true;
    this.after(0, () => this.#touch());
  }

  #touch(): void {
    if (this.#touching || !this.table.changed || !this.target) return;
    this.#touching = true;
    this.#urgent = false;
    const scheduler = this.target;
    const batch: Touched[] = this.table.take(maxBatch);
    const source = this.id;
    this.site.net.call<true>(
      this,
      scheduler,
      touchDeadlineMs,
      (reply) => {
        scheduler.touch(source, batch);
        reply(true);
      },
      (answer) => {
        if (answer) {
          this.table.told(batch);
          this.#touchFailures = 0;
          this.#touching = false;
          if (this.#urgent) this.#touch();
          return;
        }
        this.table.failed(batch);
        const wait = Math.min(2_000, 100 * 2 ** this.#touchFailures++);
        this.after(wait * this.#rng.between(0.5, 1), () => {
          this.#touching = false;
        });
      },
    );
  }

  // watcher.ts

  #connect(attempt = 0): void {
    const again = (): void => {
      this.target = this.site.lookUp(this.target, this.#rng);
      const wait = Math.min(2_000, 50 * 2 ** Math.min(attempt, 10)) * this.#rng.between(0.5, 1);
      this.after(wait, () => this.#connect(attempt + 1));
    };
    this.target ??= this.site.leader;
    const scheduler = this.target;
    if (!scheduler) {
      again();
      return;
    }
    const { id, site } = this;
    let first = true;
    const receive = this.whileAlive((message: WatchEndpointsResponse) => {
      if (this.#watch !== watch) return;
      this.#heard = this.agenda.now;
      const urgent = this.table.apply(message);
      if (first) {
        first = false;
        this.table.tellAll();
      }
      if (urgent) this.#hurry();
    });
    const watch: Watch = {
      gateway: id,
      open: true,
      send: site.net.stream(scheduler, this, () => watch.open, receive),
    };
    site.net.call<true>(
      this,
      scheduler,
      5_000,
      (reply) => {
        scheduler.open(watch);
        this.#guard(scheduler, watch);
        reply(true);
      },
      (answer) => {
        if (answer || this.#watch !== watch) return;
        watch.open = false;
        this.#watch = undefined;
        again();
      },
    );
    this.#watch = watch;
    this.#heard = this.agenda.now;
  }

  /** The scheduler's side of a watch: it notices that it is over when it hears so, or by its pings. */
  #guard(scheduler: Scheduler, watch: Watch): void {
    const { site } = this;
    let silentSince = Number.POSITIVE_INFINITY;
    const born = this.#starts;
    const look = (): void => {
      if (!scheduler.up) return;
      const gone = !this.up || this.#starts !== born || this.#watch !== watch;
      if (gone && !site.net.isBlocked(this, scheduler)) {
        watch.open = false;
        scheduler.deliver(() => scheduler.close(watch));
        return;
      }
      if (gone || site.net.isTroubled(this, scheduler)) silentSince = Math.min(silentSince, this.agenda.now);
      else silentSince = Number.POSITIVE_INFINITY;
      if (this.agenda.now - silentSince > 5_000) {
        watch.open = false;
        scheduler.deliver(() => scheduler.close(watch));
        return;
      }
      this.agenda.after(250, look);
    };
    this.agenda.after(this.#rng.between(1, 250), look);
  }

  #cut(): void {
    if (this.#watch) this.#watch.open = false;
    this.#watch = undefined;
    this.target = this.site.lookUp(this.target, this.#rng);
    this.#connect();
  }

  /** Its scheduler has died: the connection breaks. */
  schedulerDied(scheduler: Scheduler): void {
    if (this.target !== scheduler) return;
    this.after(this.#rng.between(0.5, 20), () => {
      if (this.target === scheduler) this.#cut();
    });
  }
}
