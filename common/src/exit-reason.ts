/** Why instances end, in the words that people read. */
import { ExitReason } from "@warren/proto/common";

/** "idle-killed"; what somebody asked for by Stop is "stopped", not "killed", which would look like a fault. */
export function exitReasonText(reason: ExitReason): string {
  if (reason === ExitReason.KILLED) return "stopped";
  return ExitReason[reason]?.toLowerCase().replaceAll("_", "-") ?? "unknown";
}
