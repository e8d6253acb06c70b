/** How the world reaches tenants, from what an operator says of it. Pure. */
import { isIP } from "node:net";

export interface PublicUrl {
  /** "https://{tenant}.apps.example.com": the key stands in its place. */
  readonly pattern: string;
  /** Domain under which the gateway knows tenants then; undefined where that is an address. */
  readonly domain: string | undefined;
}

const placeholder = "{tenant}";
const sample = "tenant-key";

const example =
  "it is like https://apps.example.com (tenants are <tenant>.apps.example.com) or https://example.com/{tenant}";

/**
 * @param text an http or https URL; without {tenant} each tenant has a host name below it
 * @throws TypeError saying what it should be
 */
export function parsePublicUrl(text: string): PublicUrl {
  const wrong = (why: string) => new TypeError(`${JSON.stringify(text)} ${why}: ${example}`);
  const trimmed = text.trim().replace(/\/+$/, "");
  const sampled = trimmed.replaceAll(placeholder, sample);
  if (!URL.canParse(sampled)) throw wrong("is not a URL");
  const url = new URL(sampled);
  if (url.protocol !== "http:" && url.protocol !== "https:") throw wrong("is neither http nor https");
  if (url.username || url.password || url.search || url.hash) throw wrong("has more than a host and a path");
  const isPath = url.pathname !== "/";
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const isAddress = isIP(host) !== 0;
  if (!trimmed.includes(placeholder)) {
    if (isPath) throw wrong("has a path, but no {tenant} in it");
    if (isAddress) return { pattern: `${url.origin}/${placeholder}`, domain: undefined };
    return { pattern: `${url.protocol}//${placeholder}.${url.host}`, domain: host };
  }
  if (!isPath && host.startsWith(`${sample}.`)) {
    return { pattern: trimmed, domain: host.slice(sample.length + 1) };
  }
  if (!isPath || url.pathname !== `/${sample}` || host.includes(sample)) {
    throw wrong(
      "has {tenant} where the gateway does not look for it: the first label of the host, or the whole path",
    );
  }
  return { pattern: trimmed, domain: isAddress ? undefined : host };
}
