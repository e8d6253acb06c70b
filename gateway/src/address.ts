/** Which tenant a request names, and what of its target is the tenant's. Pure. */
import { isIP } from "node:net";
import { isKey, keyRule } from "@warren/common/ids";

/** What a request's Host and target say. */
export type Address =
  /** It names a tenant; `target` is the path and query to ask it for, `prefix` what was taken off the path. */
  | { readonly kind: "tenant"; readonly tenant: string; readonly target: string; readonly prefix: string }
  /** It names none. */
  | {
      readonly kind: "refused";
      readonly status: 400 | 404;
      readonly tenant: string;
      readonly message: string;
    };

/**
 * `<tenant>.<domain>` by Host; on the bare domain or an address, `/<tenant>/…` by path. A path never overrules a Host
 * that names a tenant: tenants would otherwise reach each other's cookies through their own name.
 * @param host value of the Host header; its port is ignored
 * @param target path and query as they came
 */
export function addressOf(host: string | null, target: string, domain: string): Address {
  const name = hostName(host);
  if (!name) return refused(400, "", "the request has no usable Host header");
  if (name === domain || isIP(name) !== 0) return byPath(target, domain);
  const suffix = `.${domain}`;
  if (!name.endsWith(suffix)) {
    return refused(404, "", `this gateway serves <tenant>.${domain}, not ${name}`);
  }
  const tenant = name.slice(0, -suffix.length);
  if (!isKey(tenant)) return refused(400, tenant, `"${tenant}" is no tenant key: it ${keyRule}`);
  return { kind: "tenant", tenant, target, prefix: "" };
}

/**
 * The same where a trusted proxy may have put its own name for us in Host, and says what the client's was. A Host that
 * names a tenant wins: otherwise a visitor who can make a proxy pass X-Forwarded-Host on could have one tenant's answers
 * cached under another's name.
 * @returns also the Host header for the tenant
 */
export function named(
  host: string,
  origin: { readonly host: string },
  target: string,
  domain: string,
): { readonly address: Address; readonly host: string } {
  const own = addressOf(host, target, domain);
  if (origin.host === host || (own.kind === "tenant" && own.prefix === "")) return { address: own, host };
  const asked = addressOf(origin.host, target, domain);
  const isNamed = asked.kind === "tenant" && asked.prefix === "";
  return { address: isNamed ? asked : own, host: origin.host };
}

function byPath(target: string, domain: string): Address {
  const tenant = /^\/([^/?#]*)/.exec(target)?.[1] ?? "";
  if (tenant === "") return refused(404, "", `name a tenant: http://<tenant>.${domain}/ or /<tenant>/`);
  if (!isKey(tenant)) return refused(400, tenant, `"${tenant}" is no tenant key: it ${keyRule}`);
  const prefix = `/${tenant}`;
  const rest = target.slice(prefix.length);
  return { kind: "tenant", tenant, target: rest.startsWith("/") ? rest : `/${rest}`, prefix };
}

/** Lower case, without port, brackets and the root's dot. */
function hostName(host: string | null): string {
  const text = (host ?? "").trim().toLowerCase();
  const bracketed = /^\[([0-9a-f:.]+)\](?::\d*)?$/.exec(text);
  if (bracketed) return bracketed[1]!;
  return text.replace(/:\d*$/, "").replace(/\.$/, "");
}

function refused(status: 400 | 404, tenant: string, message: string): Address {
  return { kind: "refused", status, tenant: tenant.slice(0, 64), message: message.slice(0, 400) };
}
