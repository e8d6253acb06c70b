/** SchedulerService, the part that gets releases onto nodes ahead of their first start. */
import type { ServiceImpl } from "@connectrpc/connect";
import { ConnectError } from "@warren/common/rpc/errors";
import type { SchedulerService } from "@warren/proto/scheduler";
import { serving } from "../core/model.ts";
import { prefetchNodes } from "../core/prefetch.ts";
import { toRpcError } from "../refusals.ts";
import type { Services } from "./context.ts";
import { deadlineOf } from "./deadline.ts";

const usualNodes = 2;

export function prefetchRpcs({ engine, agents }: Services) {
  const { state, config } = engine.core;
  return {
    async prefetchRelease({ tenant: key, nodes: most }, context) {
      const tenant = state.tenants.get(key);
      if (!tenant || tenant.deleting) throw toRpcError({ kind: "no-tenant", tenant: key });
      const { source } = serving(tenant).spec;
      if (source.case !== "release") return { nodes: [], failed: {} };
      const { value: digest } = source;
      const at = engine.now();
      const chosen = prefetchNodes({ state, config, at, random: Math.random }, tenant, most || usualNodes);
      const leftMs = Math.max(1, deadlineOf(context, at) - at.mono);
      const failed: Record<string, string> = {};
      const nodes: string[] = [];
      await Promise.all(
        chosen.map(({ name, agentUrl }) =>
          agents.fetch(agentUrl, digest, leftMs).then(
            () => {
              nodes.push(name);
              engine.feed({ type: "release-fetched", digest, node: name });
            },
            (error: unknown) => {
              failed[name] = ConnectError.from(error).rawMessage;
            },
          ),
        ),
      );
      return { nodes: nodes.sort(), failed };
    },
  } satisfies Partial<ServiceImpl<typeof SchedulerService>>;
}
