/** How long a verb waits for a start. */
import type { Warren } from "@warren/client";
import { patience } from "@warren/common/rpc/patience";
import { fromDuration } from "@warren/common/time";

/** Longer than the tenant's start may take by its spec, so that the reason of one that fails is seen. */
export async function startPatience(warren: Warren, key: string): Promise<number> {
  const { tenant } = await warren.scheduler.getTenant({ tenant: key });
  const readiness = fromDuration(tenant?.spec?.readiness?.timeout, patience.readiness);
  return Math.max(patience.ensure, readiness + patience.ensureBeyondReadiness);
}
