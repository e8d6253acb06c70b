/** What the output of instances may cost. */
export interface LogBounds {
  /**
   * Of one raw file, what waits to be read, in bytes; of more the oldest is dropped. On the disk it takes no more than
   * this plus what the tenant writes between two looks: 10 ms in a flood, 100 ms before that is noticed (250 ms for a
   * quiet one where there is no inotify). While no agent runs nothing bounds it.
   */
  readonly rawBytes: number;
  /** Of one file of the copy, in bytes, before the next one is begun. */
  readonly fileBytes: number;
  /** Files of the copy that are kept, per instance. */
  readonly files: number;
  /** Output of one instance that is kept in the long run, in bytes per second; more is dropped. */
  readonly bytesPerSecond: number;
  /** Output of one instance that may come at once, in bytes. */
  readonly burstBytes: number;
  /** Ended instances per tenant whose output is kept. */
  readonly keepPerTenant: number;
  /** Ended instances in all whose output is kept. */
  readonly keepInAll: number;
  /** Bytes of their output in all; the oldest go first. */
  readonly keepBytes: number;
}

export const defaultLogBounds: LogBounds = {
  rawBytes: 16 * 1024 * 1024,
  fileBytes: 4 * 1024 * 1024,
  files: 4,
  bytesPerSecond: 1024 * 1024,
  burstBytes: 8 * 1024 * 1024,
  keepPerTenant: 3,
  keepInAll: 1_000,
  keepBytes: 1024 * 1024 * 1024,
};

/** Of all instances, since the agent began. */
export interface LogStats {
  readBytes: number;
  writtenLines: number;
  /** Because there were too many, or because they could not be kept. */
  droppedBytes: number;
  cutLines: number;
}

/** Longest line; the rest of a longer one is left out. */
export const lineBytes = 16 * 1024;
/** Taken in of a stream, or handed out, in one go: 0.3 ms for usual lines, 10 ms for empty ones. */
export const chunkBytes = 32 * 1024;
/** Of a flood at least this much stays at its end, since that is what tells why it ended. */
export const lastBytes = 64 * 1024;
