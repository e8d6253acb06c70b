/** What stands where a tenant's URL would, for one that has none. */
import pc from "picocolors";

export const servesNone = pc.dim(
  "it serves no HTTP (readiness none), and so has no URL and is never put to sleep",
);
