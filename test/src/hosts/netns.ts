/** Network namespaces by name. */

export function netnsPath(name: string): string {
  return `/run/netns/${name}`;
}

/** A command as it runs in that namespace; it keeps this one's mounts (`ip netns exec` would hide the cgroups). */
export function inNetns(name: string, command: readonly string[]): string[] {
  return ["nsenter", `--net=${netnsPath(name)}`, ...command];
}
