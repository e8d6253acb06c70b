/** Which journal is read, and what the ledger calls it. */
import { resolve } from "node:path";
import { ConfigError } from "@warren/common/config";
import { type JournalReader, openJournalReader } from "@warren/store";

/** One of the two. */
export interface JournalLocation {
  /** The scheduler's state directory, for the embedded journal. */
  readonly journalDirectory?: string;
  readonly natsUrl?: string;
}

/**
 * The journal's name in the ledger. Two names for one journal only mean that it is counted again, which changes nothing.
 * @throws ConfigError when there is not exactly one location
 */
export function sourceOf({ journalDirectory, natsUrl }: JournalLocation): string {
  if ((journalDirectory === undefined) === (natsUrl === undefined)) {
    throw new ConfigError(
      `metering reads one journal, and was given ${natsUrl === undefined ? "none" : "two"}: name the scheduler's state directory ` +
        "(--journal, for the embedded store) or a NATS server (--nats)",
    );
  }
  if (journalDirectory !== undefined) return `embedded:${resolve(journalDirectory)}`;
  // Without credentials: the ledger is no place for them.
  const hosts = natsUrl!.split(",").map((url) => url.trim().replace(/^.*@|^[a-z]+:\/\//i, ""));
  return `nats:${hosts.sort().join(",")}`;
}

/** @throws StoreUnavailableError when there is no NATS with JetStream by the deadline (5 s), or it refuses us */
export function openReader({
  journalDirectory,
  natsUrl,
}: JournalLocation): Promise<JournalReader & AsyncDisposable> {
  return openJournalReader({ url: natsUrl, directory: journalDirectory ?? "" });
}
