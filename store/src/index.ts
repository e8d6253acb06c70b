import { openEmbeddedJournalReader, openEmbeddedStore } from "./embedded/index.ts";
import {
  type NatsReaderOptions,
  type NatsStoreOptions,
  openNatsJournalReader,
  openNatsStore,
} from "./nats/index.ts";
import type { JournalReader, Store } from "./store.ts";

export {
  type EmbeddedStoreOptions,
  openEmbeddedJournalReader,
  openEmbeddedStore,
  type RetentionOptions,
} from "./embedded/index.ts";
export * from "./errors.ts";
export { DEFAULT_DEADLINE_MS, LIMITS } from "./limits.ts";
export {
  type LeaseTimings,
  leaseTimings,
  type NatsConnectOptions,
  type NatsReaderOptions,
  type NatsStoreOptions,
  openNatsJournalReader,
  openNatsStore,
  type StreamOptions,
} from "./nats/index.ts";
export type * from "./store.ts";

/** What opens either back end: the one on NATS when there is a `url`. */
export interface OpenStoreOptions extends Partial<Omit<NatsStoreOptions, "cell" | "directory">> {
  /** Of NATS; absent for the embedded store. */
  readonly url?: string;
  /** The scheduler's state directory: all of the embedded store, or this scheduler's identity on NATS. */
  readonly directory: string;
  readonly cell: string;
}

/** @throws what {@link openNatsStore} or {@link openEmbeddedStore} throws */
export function openStore(options: OpenStoreOptions): Promise<Store> {
  const { url, directory, cell, maxBlobBytes, eventsMaxAgeMs, eventsMaxCount, eventsMaxBytes } = options;
  if (url !== undefined) return openNatsStore({ ...options, url });
  // One host has one copy, and a repeated id is recognised for as long as its event is kept.
  const retention = {
    ...(eventsMaxAgeMs === undefined ? {} : { maxAgeMs: eventsMaxAgeMs }),
    ...(eventsMaxCount === undefined ? {} : { maxRows: eventsMaxCount }),
    ...(eventsMaxBytes === undefined ? {} : { maxBytes: eventsMaxBytes }),
  };
  return openEmbeddedStore({ directory, cell, maxBlobBytes, retention });
}

/** What opens a reader of either back end: the one on NATS when there is a `url`. */
export interface OpenJournalReaderOptions extends Partial<NatsReaderOptions> {
  readonly url?: string;
  /** The *scheduler's* state directory; read only, and only for the embedded store. */
  readonly directory: string;
}

/** @throws what {@link openNatsJournalReader} throws */
export async function openJournalReader(
  options: OpenJournalReaderOptions,
): Promise<JournalReader & AsyncDisposable> {
  const { url, directory } = options;
  return url === undefined
    ? openEmbeddedJournalReader({ directory })
    : openNatsJournalReader({ ...options, url });
}
