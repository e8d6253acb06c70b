/** What the verbs that edit a tenant's spec share: the edit, its check, and how it takes over. */
import type { Tenant, Warren } from "@warren/client";
import type { TenantSpec } from "@warren/proto/common";
import { checkSpec } from "./check-spec.ts";
import { errorColors } from "./colors.ts";
import { followRollout } from "./commands/rollouts.ts";

export interface Edited {
  readonly before: TenantSpec;
  readonly after: TenantSpec;
  readonly tenant: Tenant;
  /** Instances that run it now in place of others. */
  readonly replaced: number;
}

/**
 * Edits a tenant's spec, and waits until it has taken over from what is live.
 * @param change in place; called again when somebody else's edit came first
 * @throws UserError when the spec would not be right, or what was live keeps serving
 */
export async function editTenant(
  warren: Warren,
  key: string,
  options: { readonly wait: boolean; readonly timeout?: number; readonly signal: AbortSignal },
  change: (spec: TenantSpec) => void,
): Promise<Edited> {
  let before: TenantSpec | undefined;
  let after: TenantSpec | undefined;
  let seen: bigint | undefined;
  const tenant = await warren.edit(key, async (spec, now) => {
    if (now.servingSpec && !before) {
      const text = `version ${now.version} was rolled back: this changes version ${now.servingVersion}, which serves`;
      process.stderr.write(`${errorColors.dim(text)}\n`);
    }
    before = structuredClone(spec);
    seen = now.version;
    change(spec);
    await checkSpec(spec);
    after = spec;
  });
  // What is as it was replaces nothing; the last rollout was somebody else's.
  const follows = options.wait && tenant.version !== seen;
  const replaced = follows ? await followRollout(warren, tenant, options.signal, options.timeout) : 0;
  return { before: before!, after: after!, tenant, replaced };
}

/** ", 2 replaced" */
export const replacedText = (n: number): string => (n > 0 ? `, ${n} replaced` : "");
