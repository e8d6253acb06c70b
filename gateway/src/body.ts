/** Bodies on their way through, chunk by chunk; what is not asked for is not read, so that back-pressure holds. */

/** A request's body, and whether any of it was taken. */
export interface UntouchedBody {
  readonly stream: ReadableStream<Uint8Array>;
  /** Once true, the request cannot be given to another instance. */
  touched(): boolean;
  /** Makes the request's body readable again; only while it is untouched. */
  giveBack(): void;
}

/**
 * Wraps a request's body so that it is known whether fetch began to read it: a refused connection leaves it whole, and
 * then the request can go to another instance without anything having been buffered.
 */
export function untouchedBody(body: ReadableStream<Uint8Array>): UntouchedBody {
  const reader = body.getReader();
  let touched = false;
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        touched = true;
        const { value, done } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel(reason) {
        if (touched) await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
  return { stream, touched: () => touched, giveBack: () => reader.releaseLock() };
}

export interface MeteredOptions {
  /** Content-Length, where there is one. */
  readonly length: number | undefined;
  readonly onBytes: (bytes: number) => void;
  /** All of it went, or it broke; once. */
  readonly onEnd: () => void;
  /** The client went away before the end. */
  readonly onLeft: () => void;
}

/** A response's body that counts itself and tells its end. */
export function meteredBody(
  body: ReadableStream<Uint8Array>,
  options: MeteredOptions,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let sent = 0;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { value, done } = await reader.read();
          if (value) {
            sent += value.byteLength;
            options.onBytes(value.byteLength);
            controller.enqueue(value);
          }
          // With the last byte it ends, not a turn later: Bun then knows the length and sends it.
          if (done || sent === options.length) {
            options.onEnd();
            controller.close();
          }
        } catch {
          options.onEnd();
          // Cuts the client's connection, so that it does not take the part for the whole. An error with a value
          // would be printed by Bun.
          controller.error(undefined);
        }
      },
      async cancel(reason) {
        options.onEnd();
        options.onLeft();
        await reader.cancel(reason).catch(() => {});
      },
    },
    { highWaterMark: 0 },
  );
}
