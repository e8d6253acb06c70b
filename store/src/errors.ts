/** The ways in which a store refuses, each named by what the caller should do about it. */

/** The back end cannot be reached, or did not answer in time: try again later, with the same arguments. */
export class StoreUnavailableError extends Error {
  override readonly name = "StoreUnavailableError";
}

/** Somebody else has written to the state log: this writer's lease is over. Stop commanding. */
export class StaleWriterError extends Error {
  override readonly name = "StaleWriterError";
  constructor(
    readonly expectedLastSeq: bigint,
    readonly actualLastSeq: bigint | undefined,
  ) {
    super(
      `the state log's last sequence is ${actualLastSeq ?? "another"}, not ${expectedLastSeq}: another scheduler has taken over`,
    );
  }
}

/** The lease was lost or could not be renewed in time. */
export class LeaseLostError extends Error {
  override readonly name = "LeaseLostError";
}

/** The embedded store is open in another process. */
export class StoreLockedError extends Error {
  override readonly name = "StoreLockedError";
}

/** A key, id, subject or size is outside the documented bounds; nothing was stored. */
export class StoreInputError extends Error {
  override readonly name = "StoreInputError";
}

/** An existing stream or database is not what this version needs; it is left as it is. */
export class StoreMismatchError extends Error {
  override readonly name = "StoreMismatchError";
}

export class BlobNotFoundError extends Error {
  override readonly name = "BlobNotFoundError";
}
