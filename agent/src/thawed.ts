/** Tells the scheduler that an instance is not what it took it for: it was thawed since, and how often by now. */
import { detail } from "@warren/common/rpc/errors";
import { ThawedSinceSchema } from "@warren/proto/common";

export function thawedSince(wakes: number) {
  return detail(ThawedSinceSchema, { wakes: BigInt(wakes) });
}
