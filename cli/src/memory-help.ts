/** What verbs say that MEMORY is, and what it is not. */
export const memoryHelp = `MEMORY is what the kernel charges the instance with: its cgroup's share, in which what many processes have in common (the
executable, shared libraries) is charged once, to the first that used it; without cgroups its PSS. So it is less than the
resident set (RSS), which counts that in full for each.`;
