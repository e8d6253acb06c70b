/** Internet addresses as the kernel writes them, and as people do. Pure. */

/** A TCP socket that accepts connections. */
export interface Listener {
  /** "127.0.0.1", "::1"; "0.0.0.0" and "::" are all addresses. */
  readonly address: string;
  readonly port: number;
}

/** @param bytes 4 or 16, in network order */
export function addressOfBytes(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const mapped =
    bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  if (mapped) return bytes.subarray(12).join(".");
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16));
  return new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1);
}

/** "0100007F" of /proc/net/tcp, which has 32-bit words in the byte order of the machine. */
export function addressOfHex(hex: string): string {
  const bytes = new Uint8Array(hex.length / 2);
  for (let i = 0; i < bytes.length; i++) {
    const at = 4 * Math.floor(i / 4) + (3 - (i % 4));
    bytes[i] = Number.parseInt(hex.slice(2 * at, 2 * at + 2), 16);
  }
  return addressOfBytes(bytes);
}

/** "[::1]:80" */
export function shownListener({ address, port }: Listener): string {
  return `${address.includes(":") ? `[${address}]` : address}:${port}`;
}

/** Where to connect to reach what listens there: all addresses are reached at loopback's. */
export function reachedAt(address: string): string {
  if (address === "0.0.0.0") return "127.0.0.1";
  return address === "::" ? "::1" : address;
}
