/** Everything that a simulation holds, and how its parts find each other. */

import { create } from "@bufbuild/protobuf";
import { Availability, type ExitReason, NodeCapacitySchema } from "@warren/proto/common";
import type { CoreConfig } from "@warren/scheduler/core/config";
import type { Input } from "@warren/scheduler/core/inputs";
import type { Actor } from "./actor.ts";
import { Agenda } from "./agenda.ts";
import { Agent } from "./agent.ts";
import { Gateway } from "./gateway.ts";
import { type Behaviour, Host, type Process } from "./host.ts";
import { Net } from "./net.ts";
import type { Setup } from "./plan.ts";
import { Rng } from "./rng.ts";
import { type MakeCore, Scheduler } from "./scheduler.ts";
import { Store } from "./store.ts";
import { Truth } from "./truth.ts";

/** What the last user asked for, where it is certain. */
export interface Wish {
  /** The variant applied last; undefined when it was deleted. */
  variant: number | undefined;
  /** Some call about it was not answered, or crossed another. */
  unsure: boolean;
  pending: number;
}

export class Site {
  readonly agenda = new Agenda();
  readonly rng: Rng;
  readonly net: Net;
  readonly store: Store;
  readonly truth: Truth;
  readonly config: CoreConfig;
  readonly hosts = new Map<string, Host>();
  readonly agents = new Map<string, Agent>();
  readonly gateways = new Map<string, Gateway>();
  readonly schedulers = new Set<Scheduler>();
  readonly wishes = new Map<string, Wish>();
  readonly behaviours = new Map<string, Behaviour>();
  /** Tenants that were given another spec or were to be reloaded, and nodes that were to be emptied. */
  readonly changed = new Set<string>();
  readonly drained = new Set<string>();
  leader: Scheduler | undefined;
  /** The wall clock, against the time of the simulation. */
  wallOffset = 1_700_000_000_000;
  /** Inputs that cores have taken. */
  steps = 0;
  readonly served = { served: 0, broken: 0, refused: 0 };
  #ids = 0;
  #ports = 0;
  #epoch = 0n;
  #electing = false;

  constructor(
    readonly setup: Setup,
    private readonly makeCore: MakeCore,
    /** Told what happens, when somebody wants to read it. */
    private readonly onTrace?: (at: number, line: string) => void,
  ) {
    this.rng = new Rng(setup.seed).fork("site");
    this.net = new Net(this.agenda, this.rng.fork("net"));
    this.store = new Store(this.agenda, this.rng.fork("store"));
    this.config = setup.config;
    this.truth = new Truth(this);
    this.elect();
    for (let i = 0; i < setup.nodes; i++) this.addNode(`n${i}`);
    for (let i = 0; i < setup.gateways; i++) this.gateways.set(`g${i}`, new Gateway(this, `g${i}`));
  }

  addNode(name: string): void {
    const host = new Host(name);
    const capacity = create(NodeCapacitySchema, {
      memoryBytes: 8n << 30n,
      cpuMillis: 4_000,
      maxInstances: this.setup.maxInstances,
    });
    this.hosts.set(name, host);
    this.agents.set(name, new Agent(this, host, capacity, {}));
  }

  /** A new leader, as soon as the store can be sealed and read. */
  elect(): void {
    if (this.#electing) return;
    this.#electing = true;
    const attempt = (): void => {
      if (!this.store.up) {
        this.agenda.after(200, attempt);
        return;
      }
      this.#electing = false;
      this.store.seal(++this.#epoch);
      const leader = new Scheduler(this, this.#epoch, this.makeCore, this.config);
      this.trace(() => `${leader.name} leads`);
      this.schedulers.add(leader);
      this.leader = leader;
    };
    attempt();
  }

  /** The process of a scheduler dies. Whoever it was, somebody leads after it. */
  kill(scheduler: Scheduler, electInMs = 100): void {
    scheduler.crash();
    this.schedulers.delete(scheduler);
    this.net.died(scheduler);
    for (const gateway of this.gateways.values()) gateway.schedulerDied(scheduler);
    if (this.leader !== scheduler) return;
    this.leader = undefined;
    this.agenda.after(electInMs, () => {
      if (!this.leader) this.elect();
    });
  }

  /** Whom to talk to after trouble: mostly the leader, but news travel slowly. */
  lookUp(target: Scheduler | undefined, rng: Rng): Scheduler | undefined {
    if (target?.up && rng.chance(0.2)) return target;
    return this.leader;
  }

  trace(line: () => string): void {
    this.onTrace?.(this.agenda.now, line());
  }

  stepped(scheduler: Scheduler, input: Input): void {
    this.steps++;
    if (this.onTrace && !isQuiet(input))
      this.onTrace(this.agenda.now, `${scheduler.name} ← ${describe(input)}`);
  }

  newId(): string {
    return `01J${String(++this.#ids).padStart(23, "0")}`;
  }

  newPort(): number {
    return 1 + (++this.#ports % 60_000);
  }

  agentAt(url: string): Agent {
    return this.agents.get(url.slice("https://".length))!;
  }

  behaviourOf(tenant: string): Behaviour {
    return this.behaviours.get(tenant) ?? "good";
  }

  availabilityOf(tenant: string): Availability {
    return availabilityOf(tenant);
  }

  readinessMs(_tenant: string): number {
    return this.config.readinessMs;
  }

  // Hosts and their processes.

  spawn(host: Host, process: Process): void {
    this.trace(() => `${host.name} spawns ${process.ref.id} of ${process.ref.tenant} (${process.behaviour})`);
    host.processes.set(process.ref.id, process);
    this.truth.spawned(host, process);
    const { behaviour } = process;
    const fate = { crashes: [1, 200], dies: [300, 5_000], ends: [300, 5_000] }[behaviour as string];
    if (!fate) return;
    this.agenda.after(this.rng.between(fate[0]!, fate[1]!), () =>
      this.dies(host, process.ref.id, behaviour === "ends" ? 0 : 1),
    );
  }

  /** A process ends by itself; its agent notices, if it runs. */
  dies(host: Host, id: string, code: number): void {
    if (!host.processes.has(id)) return;
    this.end(host, id);
    const agent = this.agents.get(host.name)!;
    agent.deliver(() => agent.instances.get(id)?.processEnded(code));
  }

  /** Nothing of it is left. */
  end(host: Host, id: string): void {
    const process = host.processes.get(id);
    if (!process) return;
    this.trace(() => `${host.name}: ${id} of ${process.ref.tenant} is gone`);
    host.processes.delete(id);
    this.truth.ended(host, process);
  }

  isAlive(node: string, process: Process): boolean {
    return this.hosts.get(node)?.processes.get(process.ref.id) === process;
  }

  /** The process that answers there, if it can be reached. */
  reach(from: Actor, node: string, id: string, port: number): Process | undefined {
    const agent = this.agents.get(node);
    if (!agent || this.net.isBlocked(from, agent)) return undefined;
    const process = this.hosts.get(node)?.processes.get(id);
    return process?.port === port ? process : undefined;
  }
}

/** Some tenants are never to run twice, whatever happens. */
export function availabilityOf(tenant: string): Availability {
  return Number(tenant.slice(1)) % 4 === 3 ? Availability.AT_MOST_ONE : Availability.AT_LEAST_ONE;
}

/** Tells nothing to whoever reads a history. */
function isQuiet(input: Input): boolean {
  if (input.type === "report") return input.transitions.length === 0 && !input.inventory;
  return input.type === "tick";
}

function describe(input: Input): string {
  switch (input.type) {
    case "report": {
      const told = input.transitions.map(
        ({ instance, to, exit }) => `${instance?.id}:${to}${exit ? `(${exit.reason as ExitReason})` : ""}`,
      );
      const inventory = input.inventory?.map(({ ref, state }) => `${ref?.id}:${state}`);
      return `report ${input.node} ${told.join(" ")}${inventory ? ` inventory [${inventory.join(" ")}]` : ""}`;
    }
    case "touch":
      return `touch ${input.source} ${input.entries.map((e) => `${e.instance} in flight ${e.inFlight} seen ${e.seen}${e.sealed ? " sealed" : ""}`).join(", ")}`;
    case "join":
      return `join ${input.info.node} ${input.info.bootId} ${input.info.incarnation}`;
    case "started":
      return `started ${input.instance} ${input.outcome.kind}${"instance" in input.outcome ? ` state ${input.outcome.instance.state}` : ""}`;
    case "stopped":
      return `stopped ${input.instance} ${input.error ?? "gone"}`;
    case "load":
      return "load";
    case "apply":
      return `apply ${input.call} ${input.spec.key}`;
    default:
      return Object.values(input)
        .filter((value) => typeof value !== "object")
        .join(" ");
  }
}
