/** Who listens on a port: the kernel names sockets by inode, /proc/<pid>/fd says whose they are. */
import { readFileSync } from "node:fs";
import { listPids, readStat, socketInodes } from "./procfs.ts";
import { diagListeners } from "./sockdiag.ts";

/** A listening TCP socket. */
export interface ListeningSocket {
  readonly port: number;
  readonly inode: string;
}

const listening = "0A";

/** Parses /proc/net/tcp or tcp6. */
export function parseListeners(text: string): ListeningSocket[] {
  const found: ListeningSocket[] = [];
  for (const line of text.split("\n")) {
    const fields = line.trim().split(/\s+/);
    const port = fields[1]?.split(":")[1];
    const inode = fields[9];
    if (fields[3] !== listening || !port || !inode) continue;
    found.push({ port: Number.parseInt(port, 16), inode });
  }
  return found;
}

/**
 * Listening TCP sockets of this network namespace.
 * @param port only those on it; 0 for all
 */
export function listeners(port: number): ListeningSocket[] {
  const all = diagListeners(port) ?? procListeners();
  return port === 0 ? all : all.filter((socket) => socket.port === port);
}

/** The same from /proc/net, for kernels without sock_diag. */
export function procListeners(): ListeningSocket[] {
  return ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((path) => {
    try {
      return parseListeners(readFileSync(path, "latin1"));
    } catch {
      return []; // no IPv6 here
    }
  });
}

/** Whose a port is, as seen from one instance. */
export type PortOwner =
  | { readonly kind: "nobody" }
  | { readonly kind: "instance" }
  | { readonly kind: "stranger"; readonly who: string };

/**
 * Whether all that listens on the port belongs to these processes. All, not some: with SO_REUSEPORT a stranger could
 * take a share of the connections.
 */
export function ownerOf(port: number, pids: readonly number[]): PortOwner {
  const inodes = listeners(port).map((socket) => socket.inode);
  if (inodes.length === 0) return { kind: "nobody" };
  const ours = new Set(pids.flatMap(socketInodes));
  const foreign = inodes.find((inode) => !ours.has(inode));
  return foreign === undefined ? { kind: "instance" } : { kind: "stranger", who: describeHolder(foreign) };
}

/** Ports that these processes listen on. */
export function portsOf(pids: readonly number[]): number[] {
  const ours = new Set(pids.flatMap(socketInodes));
  return [...new Set(listeners(0).flatMap((socket) => (ours.has(socket.inode) ? [socket.port] : [])))];
}

function describeHolder(inode: string): string {
  for (const pid of listPids()) {
    if (socketInodes(pid).includes(inode)) return `process ${pid} (${readStat(pid)?.comm ?? "gone"})`;
  }
  return "another user's process";
}
