/** Whose a port is: the kernel names sockets by inode, /proc/<pid>/fd says whose they are. */
import { readFileSync } from "node:fs";
import { isMissing } from "../files.ts";
import { addressOfHex, type Listener } from "./addresses.ts";
import type { PortOwner } from "./kernel.ts";
import { findSockets, listPids, readStat } from "./procfs.ts";
import { diagSockets, type LocalSocket, tcpStates } from "./sockdiag.ts";

/** Parses /proc/net/tcp or tcp6: those in that state. */
export function parseSockets(text: string, state: number): LocalSocket[] {
  const found: LocalSocket[] = [];
  for (const line of text.split("\n")) {
    const fields = line.trim().split(/\s+/);
    const [address, port] = fields[1]?.split(":") ?? [];
    const inode = fields[9];
    if (Number.parseInt(fields[3] ?? "", 16) !== state || !address || !port || !inode) continue;
    found.push({ address: addressOfHex(address), port: Number.parseInt(port, 16), inode });
  }
  return found;
}

/** @param port only those on it, locally; 0 for all */
function socketsOn(port: number, state: number): LocalSocket[] {
  const all = diagSockets(port, state) ?? procSockets(state);
  return port === 0 ? all : all.filter((socket) => socket.port === port);
}

/** Established connections to a local port. */
export function connectionsTo(port: number): number {
  return socketsOn(port, tcpStates.established).length;
}

/** The same from /proc/net, for kernels without sock_diag. */
export function procSockets(state: number): LocalSocket[] {
  return ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((path) => {
    try {
      return parseSockets(readFileSync(path, "latin1"), state);
    } catch (error) {
      if (isMissing(error)) return []; // no IPv6 here
      throw error;
    }
  });
}

/**
 * Whether all that listens on the port belongs to these processes. All, not some: with SO_REUSEPORT a stranger could
 * take a share of the connections.
 */
export function ownerOf(port: number, pids: readonly number[]): PortOwner {
  const inodes = new Set(socketsOn(port, tcpStates.listen).map((socket) => socket.inode));
  if (inodes.size === 0) return { kind: "nobody" };
  const ours = findSockets(pids, inodes);
  const foreign = inodes.values().find((inode) => !ours.has(inode));
  return foreign === undefined ? { kind: "instance" } : { kind: "stranger", who: describeHolder(foreign) };
}

/** Where these processes listen. */
export function listenersOf(pids: readonly number[]): Listener[] {
  const listening = socketsOn(0, tcpStates.listen);
  const ours = findSockets(pids, new Set(listening.map((socket) => socket.inode)));
  return listening.flatMap(({ address, port, inode }) => (ours.has(inode) ? [{ address, port }] : []));
}

function describeHolder(inode: string): string {
  const pid = findSockets(listPids(), new Set([inode])).get(inode);
  return pid === undefined ? "another user's process" : `process ${pid} (${readStat(pid)?.comm ?? "gone"})`;
}
