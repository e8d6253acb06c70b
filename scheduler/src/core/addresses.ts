/** Where the world reaches a tenant. */
import { servesHttp } from "@warren/common/spec-check";
import { type State, serving } from "./model.ts";

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
