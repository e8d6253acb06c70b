/** SchedulerService, the part about tenants and their releases: what a control plane keeps. */
import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { isKey, keyRule } from "@warren/common/ids";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { fromTimestamp } from "@warren/common/time";
import { type TenantSpec, TenantSpecSchema } from "@warren/proto/common";
import { type SchedulerService, VolumesOnDelete } from "@warren/proto/scheduler";
import { explain } from "../core/explain.ts";
import { serving, type Tenant } from "../core/model.ts";
import { isRunning } from "../core/rollout.ts";
import { releaseEntry } from "../records.ts";
import { toRpcError } from "../refusals.ts";
import type { Services } from "./context.ts";
import { deadlineOf } from "./deadline.ts";
import { pageOf } from "./page.ts";
import { defaultsView, tenantView } from "./views.ts";

const defaultPage = 100;
const releasesPage = 1000;

const volumesOnDelete: Record<VolumesOnDelete, "keep" | "remove" | undefined> = {
  [VolumesOnDelete.UNSPECIFIED]: undefined,
  [VolumesOnDelete.KEEP]: "keep",
  [VolumesOnDelete.REMOVE]: "remove",
};

function withRelease(spec: TenantSpec, digest: string): TenantSpec {
  return create(TenantSpecSchema, { ...spec, source: { case: "release", value: digest } });
}

function digestOf(spec: TenantSpec | undefined): string | undefined {
  return spec?.source.case === "release" ? spec.source.value : undefined;
}

export function tenantRpcs({ engine, releases, writer }: Services) {
  const { state, config } = engine.core;
  const known = (key: string) => {
    const tenant = state.tenants.get(key);
    if (!tenant || tenant.deleting) throw toRpcError({ kind: "no-tenant", tenant: key });
    return tenant;
  };
  /** Before the core is asked: until the spec is durable, nothing else says that its release is wanted. */
  const holdRelease = ({ source }: TenantSpec) => {
    if (source.case === "release") releases.holds.hold(source.value);
  };
  const shown = (tenant: Tenant) => tenantView(state, config, tenant, engine.now());
  return {
    async applyTenant({ spec, expectedVersion }) {
      holdRelease(spec!);
      const expected = expectedVersion === undefined ? undefined : Number(expectedVersion);
      await engine.ask((call) => ({ type: "apply", call, spec: spec!, expected }));
      return { tenant: shown(known(spec!.key)) };
    },
    getTenant({ tenant }) {
      return { tenant: shown(known(tenant)), defaults: defaultsView(config) };
    },
    listTenants({ pageSize, pageToken }) {
      const most = pageSize || defaultPage;
      const { page, more } = pageOf(state.tenants.keys(), pageToken, most);
      return {
        tenants: page.map((key) => shown(state.tenants.get(key)!)),
        nextPageToken: more ? page.at(-1)! : "",
      };
    },
    async deleteTenant({ tenant, volumes: choice }, context) {
      if (!state.tenants.has(tenant)) throw toRpcError({ kind: "no-tenant", tenant });
      const deadline = deadlineOf(context, engine.now());
      const volumes = volumesOnDelete[choice];
      await engine.ask((call) => ({ type: "operation", call, kind: "delete", tenant, deadline, volumes }));
      return {};
    },
    async uploadRelease(parts) {
      const release = await releases.receive(parts);
      const before = state.releases.get(release.digest);
      if (before) return { release: before };
      await writer.append(releaseEntry(release)).catch((error: Error) => {
        throw toRpcError({ kind: "store-down", message: error.message });
      });
      engine.feed({ type: "release", release });
      return { release };
    },
    listReleases({ tenant: key, pageSize, pageToken }) {
      if (key && !isKey(key)) throw rpcError(Code.InvalidArgument, `tenant: ${keyRule}`);
      if (pageSize > 0 && !key) {
        const { page, more } = pageOf(state.releases.keys(), pageToken, pageSize);
        const next = more ? page.at(-1)! : "";
        return { releases: page.map((digest) => state.releases.get(digest)!), nextPageToken: next };
      }
      const tenant = state.tenants.get(key);
      const named = new Set(tenant && [tenant.newest, tenant.previous].map((one) => digestOf(one?.spec)));
      return {
        releases: [...state.releases.values()]
          .filter((release) => !key || release.tenant === key || named.has(release.digest))
          .sort((a, b) => fromTimestamp(b.createdAt, 0) - fromTimestamp(a.createdAt, 0))
          .slice(0, releasesPage),
        serving: tenant && digestOf(serving(tenant).spec),
      };
    },
    async rollback({ tenant: key, release }, context) {
      const { newest, previous } = known(key);
      const spec = release ? withRelease(newest.spec, release) : previous?.spec;
      if (!spec) {
        throw rpcError(
          Code.FailedPrecondition,
          `tenant ${key} has no earlier version: name the release that it is to have ('warren releases ${key}' lists them)`,
        );
      }
      holdRelease(spec);
      await engine.ask((call) => ({ type: "apply", call, spec }));
      const instances = isRunning(known(key).rollout)
        ? await engine.ask((call) => ({
            type: "reload",
            call,
            tenant: key,
            deadline: deadlineOf(context, engine.now()),
          }))
        : undefined;
      return {
        tenant: shown(known(key)),
        instances: instances?.kind === "reloaded" ? [...instances.instances] : [],
      };
    },
    explain({ tenant }) {
      const { nowhere = {} } = known(tenant);
      return { text: explain(state, config, tenant, engine.now()) ?? "", refused: { ...nowhere } };
    },
    clearBackoff({ tenant }) {
      known(tenant);
      engine.feed({ type: "clear-backoff", tenant });
      return {};
    },
  } satisfies Partial<ServiceImpl<typeof SchedulerService>>;
}
