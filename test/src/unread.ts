/** What the kernel holds for a process that does not read: how a test knows that its request has reached one that sleeps. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

interface Connection {
  readonly localPort: number;
  readonly remotePort: number;
  readonly unread: number;
  readonly inode: string;
}

/** IPv4 connections of this network namespace. */
function connections(): Connection[] {
  const portOf = (address: string) => Number.parseInt(address.split(":")[1]!, 16);
  return readFileSync("/proc/net/tcp", "latin1")
    .trim()
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .map((fields) => ({
      localPort: portOf(fields[1]!),
      remotePort: portOf(fields[2]!),
      unread: Number.parseInt(fields[4]!.split(":")[1]!, 16),
      inode: fields[9]!,
    }));
}

/** Our own ends of this process's connections to `port`. */
export function ownPorts(port: number): Set<number> {
  const inodes = new Set<string>();
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
      if (inode) inodes.add(inode);
    } catch {
      // closed in between
    }
  }
  const own = connections().filter(({ remotePort, inode }) => remotePort === port && inodes.has(inode));
  return new Set(own.map(({ localPort }) => localPort));
}

/** How many of the connections from `clients` to `port` have bytes that its process has not read. */
export function unreadFrom(clients: ReadonlySet<number>, port: number): number {
  return connections().filter(
    ({ localPort, remotePort, unread }) => localPort === port && clients.has(remotePort) && unread > 0,
  ).length;
}
