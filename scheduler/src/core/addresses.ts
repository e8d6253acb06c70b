/** Where the world reaches a tenant. */
import { ReadinessKind, type TenantSpec } from "@warren/proto/common";
import { type State, serving } from "./model.ts";

/** Whether requests can reach it, and so wake it. */
export function servesHttp(spec: TenantSpec | undefined): boolean {
  return spec?.readiness?.kind !== ReadinessKind.NONE;
}

/** Where its HTTP traffic goes; empty for one that serves none, and while no gateway has said how tenants are reached. */
export function urlOf(state: State, key: string): string {
  const tenant = state.tenants.get(key);
  return tenant && !servesHttp(serving(tenant).spec) ? "" : publicUrlOf(state, key);
}

/** What its visitors send as Host; empty while no gateway has said how tenants are reached. */
export function hostNameOf(state: State, key: string): string {
  const url = publicUrlOf(state, key);
  return URL.canParse(url) ? new URL(url).host : "";
}

function publicUrlOf(state: State, key: string): string {
  let template = "";
  for (const gateway of state.gateways.values()) if (gateway.publicUrl) template = gateway.publicUrl;
  return template.replaceAll("{tenant}", key);
}
