/** Text in parts of a bounded size. */

/** Fits the contract. */
export const chunkBytes = 256 * 1024;

/** Lines, joined to parts of at most `most` bytes; not cut at a line's end. */
export async function* chunksOf(
  lines: AsyncIterable<string>,
  most = chunkBytes,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  let buffer = new Uint8Array(most);
  let used = 0;
  for await (const line of lines) {
    let rest: Uint8Array = encoder.encode(line);
    while (used + rest.length > most) {
      buffer.set(rest.subarray(0, most - used), used);
      rest = rest.subarray(most - used);
      yield buffer;
      buffer = new Uint8Array(most);
      used = 0;
    }
    buffer.set(rest, used);
    used += rest.length;
  }
  if (used > 0) yield buffer.subarray(0, used);
}
