/** Whose word counts on who asks: addresses of the operator's own proxies. */
import { BlockList, isIP } from "node:net";

/** Ranges of addresses. Empty: nobody is trusted. */
export class TrustedProxies {
  readonly #list = new BlockList();
  readonly #isEmpty: boolean;

  /**
   * @param ranges "10.0.0.0/8", "fd00::/8", or an address
   * @throws TypeError naming the one that is no range
   */
  constructor(readonly ranges: readonly string[]) {
    this.#isEmpty = ranges.length === 0;
    for (const range of ranges) this.#add(range);
  }

  /** An IPv4 address in IPv6's clothes is that IPv4 address. */
  has(address: string): boolean {
    if (this.#isEmpty) return false;
    const plain = plainAddress(address);
    const version = isIP(plain);
    return version !== 0 && this.#list.check(plain, version === 4 ? "ipv4" : "ipv6");
  }

  #add(range: string): void {
    const [, address = "", bits] = /^([0-9a-fA-F.:]+)(?:\/(\d{1,3}))?$/.exec(range) ?? [];
    const version = isIP(address);
    const most = version === 4 ? 32 : 128;
    const prefix = bits === undefined ? most : Number(bits);
    if (version === 0 || prefix > most) {
      throw new TypeError(
        `"${range}" is no range of addresses: one is like 10.0.0.0/8, fd00::/8 or 192.0.2.7; several have commas between them`,
      );
    }
    this.#list.addSubnet(address, prefix, version === 4 ? "ipv4" : "ipv6");
  }
}

/** Without IPv6's clothes around an IPv4 address, brackets, and a zone. */
export function plainAddress(address: string): string {
  return address
    .replace(/^\[(.*)\]$/, "$1")
    .replace(/%.*$/, "")
    .replace(/^::ffff:(?=\d+\.)/i, "");
}
