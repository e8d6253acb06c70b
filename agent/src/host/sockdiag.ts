/**
 * TCP sockets through netlink (sock_diag, as `ss` does): 0.03 ms, where /proc/net/tcp costs 3 to 7 ms because the
 * kernel walks its whole table of connections for it. That would be half of a start.
 */
import { ptr } from "bun:ffi";
import { addressOfBytes, type Listener } from "./addresses.ts";
import { openLibc } from "./libc.ts";

/** A TCP socket of this host. */
export interface LocalSocket extends Listener {
  readonly inode: string;
}

const afNetlink = 16;
const sockDgramCloexec = 2 | 0o2000000;
const netlinkSockDiag = 4;
const msgDontWait = 0x40;
const sockDiagByFamily = 20;
const requestDump = 0x301;
const nlmsgError = 2;
const nlmsgDone = 3;
const headerBytes = 16;
const requestBytes = headerBytes + 56;
/** Offsets in a reply, from the beginning of its header: `struct nlmsghdr`, then `struct inet_diag_msg`. */
const familyOffset = headerBytes;
const sportOffset = headerBytes + 4;
const srcOffset = headerBytes + 8;
const inodeOffset = headerBytes + 68;
const tcp = 6;
/** States of TCP sockets, as the kernel numbers them. */
export const tcpStates = { established: 1, listen: 10 } as const;
const inet = 2;
const families = [inet, 10]; // AF_INET, AF_INET6
/** Replies come in batches of at most 32 KiB; a dump of more of them than this is given up. */
const bufferBytes = 65_536;
const mostBatches = 1_000;

const libc = openLibc({
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  send: { args: ["i32", "ptr", "u64", "i32"], returns: "i64" },
  recv: { args: ["i32", "ptr", "u64", "i32"], returns: "i64" },
  close: { args: ["i32"], returns: "i32" },
});

/**
 * Sockets of this network namespace.
 * @param port only those on it, locally; 0 for all
 * @returns undefined where the kernel does not answer
 */
export function diagSockets(port: number, state: number): LocalSocket[] | undefined {
  if (!libc) return undefined;
  const fd = libc.socket(afNetlink, sockDgramCloexec, netlinkSockDiag);
  if (fd < 0) return undefined;
  try {
    const found: LocalSocket[] = [];
    for (const family of families) {
      const request = requestFor(family, port, state);
      if (Number(libc.send(fd, ptr(request), request.length, 0)) !== request.length) return undefined;
      if (!receive(fd, found)) return undefined;
    }
    return found;
  } finally {
    libc.close(fd);
  }
}

function requestFor(family: number, port: number, state: number): Uint8Array {
  const bytes = new Uint8Array(requestBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, requestBytes, true);
  view.setUint16(4, sockDiagByFamily, true);
  view.setUint16(6, requestDump, true);
  view.setUint8(headerBytes, family);
  view.setUint8(headerBytes + 1, tcp);
  view.setUint32(headerBytes + 4, 1 << state, true);
  view.setUint16(headerBytes + 8, port, false); // network order
  return bytes;
}

function receive(fd: number, into: LocalSocket[]): boolean {
  const buffer = new Uint8Array(bufferBytes);
  const view = new DataView(buffer.buffer);
  for (let batch = 0; batch < mostBatches; batch++) {
    const length = Number(libc!.recv(fd, ptr(buffer), bufferBytes, msgDontWait));
    if (length <= 0) return false;
    for (let at = 0; at + headerBytes <= length; ) {
      const size = view.getUint32(at, true);
      const type = view.getUint16(at + 4, true);
      if (type === nlmsgDone) return true;
      if (type === nlmsgError || size < headerBytes) return false;
      if (at + inodeOffset + 4 <= length) {
        const length = view.getUint8(at + familyOffset) === inet ? 4 : 16;
        into.push({
          address: addressOfBytes(buffer.subarray(at + srcOffset, at + srcOffset + length)),
          port: view.getUint16(at + sportOffset, false),
          inode: String(view.getUint32(at + inodeOffset, true)),
        });
      }
      at += (size + 3) & ~3;
    }
  }
  return false;
}
