/** Bounds of every RPC, the same for both ends. */
export const rpcLimits = {
  /**
   * Largest message. One that is over it poisons a client's transport, so both ends have the same bound: the client
   * refuses to send what the server would refuse to read. Also the default of grpc-js.
   */
  messageBytes: 4 * 1024 * 1024,
  /** Largest chunk in a stream of bytes. */
  chunkBytes: 256 * 1024,
  /** Longest deadline that a caller may ask for. */
  maxTimeoutMs: 35 * 60_000,
  /** Deadline of a unary call whose caller set none. */
  defaultTimeoutMs: 30_000,
  /** `maxSessionMemory` in MB: counts unread bodies, and at its default of 10 kills a session with 8 × 5 MB in flight. */
  sessionMemoryMb: 1000,
  /** Stream resets allowed at once and a second; at the default ~1000 expired deadlines end everyone's connection. */
  resetBurst: 100_000,
  resetRate: 10_000,
  /** An http2 client asks its server this often whether it is alive, and gives it this long. */
  pingIntervalMs: 5_000,
  pingTimeoutMs: 3_000,
} as const;
