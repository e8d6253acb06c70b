/**
 * One leadership, from the lease to its end: load → command → stop. All that knows of the cluster's state is made anew for
 * each, so that nothing of an earlier one can leak into it.
 */
import type { ServiceImpl } from "@connectrpc/connect";
import type { EventFormat } from "@warren/common/cloudevents";
import type { Logger } from "@warren/common/log";
import type { Credentials } from "@warren/common/rpc/credentials";
import { systemClock, withDeadline } from "@warren/common/time";
import { type CertificateAuthority, hostsOf } from "@warren/common/tls/ca";
import type { EnrolService, NodeService, SchedulerService } from "@warren/proto/scheduler";
import type { Lease, StateSnapshot, Store } from "@warren/store";
import { Agents } from "./agents.ts";
import { BackupBytes } from "./backup-bytes.ts";
import { collectReleases } from "./collector.ts";
import type { CoreConfig } from "./core/config.ts";
import type { State } from "./core/model.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import type { Outbox } from "./outbox.ts";
import { Publisher } from "./publisher.ts";
import { loadedFrom } from "./records.ts";
import type { Releases } from "./releases.ts";
import { enrolRpcs } from "./services/enrol-rpcs.ts";
import { instanceRpcs } from "./services/instance-rpcs.ts";
import { logRpcs } from "./services/log-rpcs.ts";
import { nodeService } from "./services/node-service.ts";
import { prefetchRpcs } from "./services/prefetch-rpcs.ts";
import { spendingRpcs } from "./services/spending-rpcs.ts";
import { streamRpcs } from "./services/stream-rpcs.ts";
import { tenantRpcs } from "./services/tenant-rpcs.ts";
import { trafficRpcs } from "./services/traffic-rpcs.ts";
import { volumeRpcs } from "./services/volume-rpcs.ts";
import { spentFrom } from "./spent-tokens.ts";
import { StateWriter } from "./state-writer.ts";
import { Watchers } from "./watchers.ts";

export interface TermOptions {
  /** The scheduler's. */
  readonly name: string;
  readonly store: Store;
  readonly lease: Lease;
  readonly releases: Releases;
  readonly config: CoreConfig;
  readonly credentials: Credentials;
  readonly version: string;
  /** Of events' payloads. */
  readonly eventFormat: EventFormat;
  /** Of this scheduler, whether it leads or not. */
  readonly outbox: Outbox;
  readonly log: Logger;
  readonly onDecided: EngineOptions["onDecided"];
  /** The cell's CA, if this scheduler may sign. */
  readonly authority?: CertificateAuthority;
}

/** Appends under way get so long at an end that was asked for. */
const lastWordsMs = 2_000;
/**
 * An agent's word on the highest epoch is believed up to so far above our own: each failover raises it by one, and one
 * that claims the last number there is would leave none for those to come.
 */
const mostEpochsAhead = 1n << 32n;

export class Term {
  readonly epoch: bigint;
  readonly nodeService: ServiceImpl<typeof NodeService>;
  readonly enrolService: ServiceImpl<typeof EnrolService>;
  readonly schedulerService: Partial<ServiceImpl<typeof SchedulerService>>;
  readonly #lease: Lease;
  readonly #engine: Engine;
  readonly #writer: StateWriter;
  readonly #watchers: Watchers;
  readonly #agents: Agents;
  readonly #collecting: Promise<void>;
  readonly #over = new AbortController();
  #highest: bigint;

  /**
   * Loads the state and begins to command.
   * @throws StoreUnavailableError; Error naming a record that cannot be read
   */
  static async begin(options: TermOptions): Promise<Term> {
    const snapshot = await options.store.state.load();
    return new Term(options, snapshot);
  }

  private constructor(options: TermOptions, snapshot: StateSnapshot) {
    const { store, lease, log, config, credentials, releases, version, name } = options;
    const { epoch } = lease;
    this.epoch = epoch;
    this.#highest = epoch;
    this.#lease = lease;
    const { signal } = this.#over;
    const eventStyle = { cell: config.cell, format: options.eventFormat };
    const onStale = (error: Error, seen?: bigint) => this.#supersede(error, seen);
    lease.lost.addEventListener("abort", () => onStale(lease.lost.reason as Error), { once: true, signal });
    this.#writer = new StateWriter({ state: store.state, lastSeq: snapshot.lastSeq, log, onStale });
    const publisher = new Publisher(options.outbox, { source: name, epoch, style: eventStyle });
    this.#watchers = new Watchers(epoch);
    this.#agents = new Agents({ credentials, epoch, signal, onStale });
    this.#engine = new Engine({
      config,
      epoch,
      clock: systemClock,
      log,
      holds: () => this.holds,
      agents: this.#agents,
      backups: new BackupBytes({
        agents: this.#agents,
        blobs: store.blobs,
        holds: releases.holds,
        epoch,
        signal,
      }),
      publisher,
      writer: this.#writer,
      watchers: this.#watchers,
      onDecided: options.onDecided,
    });
    this.#engine.feed({ type: "load", loaded: loadedFrom(snapshot) });
    const services = {
      engine: this.#engine,
      store,
      writer: this.#writer,
      releases,
      watchers: this.#watchers,
      agents: this.#agents,
      epoch,
      log,
      version,
      eventStyle,
      stopping: signal,
      onStale,
    };
    this.nodeService = nodeService(services);
    this.enrolService = enrolRpcs(services, {
      authority: options.authority,
      tokenKey: credentials.tokenKey ?? "",
      ownHosts: credentials.cert ? hostsOf(credentials.cert) : [],
      spent: spentFrom(snapshot),
    });
    this.schedulerService = {
      ...tenantRpcs(services),
      ...prefetchRpcs(services),
      ...instanceRpcs(services),
      ...spendingRpcs(services),
      ...streamRpcs(services),
      ...logRpcs(services),
      ...trafficRpcs(services),
      ...volumeRpcs(services),
    };
    this.#engine.start();
    this.#collecting = collectReleases({
      engine: this.#engine,
      writer: this.#writer,
      blobs: store.blobs,
      holds: releases.holds,
      clock: systemClock,
      log,
      signal,
    });
  }

  /** Aborts when it is over; the reason says why. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  /** Whether this scheduler may command and answer at this moment. */
  get holds(): boolean {
    return !this.#over.signal.aborted && this.#lease.held;
  }

  /** The highest epoch that anybody was heard to speak of. */
  get highestEpoch(): bigint {
    return this.#highest;
  }

  get state(): State {
    return this.#engine.core.state;
  }

  /**
   * Commands nothing any more, and answers those who still wait that it does not. What was decided under a lease that was
   * held to the end is still written; what is left of one that was lost is not.
   */
  async end(): Promise<void> {
    const patienceMs = this.holds ? lastWordsMs : 0;
    this.#over.abort(new Error("this scheduler was asked to stop"));
    this.#watchers.close();
    this.#engine.stop();
    this.#agents.close();
    await Promise.all([
      this.#writer.stop(patienceMs),
      // A removal that the store keeps waiting ends by itself.
      withDeadline(this.#collecting, patienceMs, "the collection of releases").catch(() => {}),
    ]);
  }

  #supersede(error: Error, seen = 0n): void {
    if (seen > this.#highest && seen - this.epoch <= mostEpochsAhead) this.#highest = seen;
    this.#over.abort(error);
  }
}
