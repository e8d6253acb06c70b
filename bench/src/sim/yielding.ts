/** A long sum lets the world in now and then: Ctrl-C, and the end of the bench's time. */
import { pause } from "@warren/common/time";

/** @throws what the signal was aborted with */
export async function yielding(signal: AbortSignal): Promise<void> {
  await pause(0, signal);
  signal.throwIfAborted();
}
