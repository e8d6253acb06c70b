/**
 * The ladder of isolation, as this node has it. `none`: a process of the agent's user. `user`: a uid of its own,
 * no_new_privs, resource limits. `cgroup`: limits on memory, CPU and pids besides. `namespace`: bubblewrap around it,
 * with mounts and pids of its own: it sees its release, its one writable directory and /usr, nothing else.
 */
import { chownSync, existsSync, lstatSync, mkdirSync, readlinkSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { rungName } from "@warren/common/isolation";
import { Isolation } from "@warren/proto/common";
import { placeBun, type TenantBun } from "./command.ts";
import { errnoOf, messageOf, removeTree } from "./files.ts";
import type { GroupLimits, Host } from "./host/host.ts";
import type { ProcessEnd } from "./machine.ts";
import type { Bind } from "./mounts/mounts.ts";
import { forbidNewPrivileges, limited, ownLimits } from "./rlimits.ts";

/** Who an instance is to the kernel. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
}

/** What an instance may use at most; 0 means what its rung gives by default. */
export interface Limits extends GroupLimits {
  readonly openFiles: number;
}

/** How a command is spawned on a rung. */
export interface Confinement {
  readonly command: readonly string[];
  readonly identity: Identity | undefined;
  readonly group: GroupLimits | undefined;
  /** Name of the program around the command. */
  readonly wrapper: string | undefined;
}

export interface ConfinementPlan {
  readonly rung: Isolation;
  readonly identity: Identity;
  readonly limits: Limits;
  /** Other instances of the tenant have the same uid, so that what is counted by uid is counted of all of them. */
  readonly sharesUid: boolean;
  readonly command: readonly string[];
  readonly tenant: string;
  /** Where it runs from, read-only. */
  readonly directory: string;
  /** Its one writable directory; `tmp` in it becomes /tmp. */
  readonly home: string;
  /** Bun's cache: the other directory that it may write to. */
  readonly cache: string | undefined;
  /** Directories of its own that are mounted over its release, or beside it. */
  readonly binds: readonly Bind[];
  /** Other files and directories that it may read. */
  readonly readable: readonly string[];
}

/** Above any that other things on a host use (systemd's containers end at 1,879,048,191), below 2^31. */
export const defaultUidBase = 2_000_000_000;
/** A port, which no other agent of this host hands out, makes a uid that none of them does. */
export const uidOf = (base: number, port: number): number => base + port;

/** What a process of its own uid gets that asks for nothing: enough for any app, and an end to a fork bomb. */
const defaultProcesses = 1_024;
const defaultOpenFiles = 65_536;
/** Instances of a tenant on one node that share a port, for the bound on their uid; each group has its own. */
const mostSharers = 16;
export const wrapperName = "bwrap";
const trialMs = 5_000;

interface Tools {
  readonly prlimit: string;
  readonly bwrap: string;
}

export class Sandbox {
  readonly #most = process.platform === "linux" ? ownLimits() : { processes: 0, openFiles: 0 };

  private constructor(
    readonly highest: Isolation,
    /** Why there are no higher rungs, one sentence each. */
    readonly missing: readonly string[],
    readonly bun: TenantBun,
    private readonly tools: Tools,
  ) {}

  /** Rungs that this node has, lowest first. */
  get rungs(): Isolation[] {
    return [Isolation.NONE, Isolation.USER, Isolation.CGROUP, Isolation.NAMESPACE].filter(
      (rung) => rung <= this.highest,
    );
  }

  /**
   * Which rungs work here: each is tried with a real process.
   * @param most no higher than this one
   * @param homes where instances' directories are; must be reachable by other users for `user` and above
   */
  static async probe(options: {
    readonly most: Isolation;
    readonly host: Host;
    readonly bun: TenantBun;
    readonly homes: string;
    readonly uidBase: number;
  }): Promise<Sandbox> {
    const { most, host, homes, uidBase } = options;
    let { bun } = options;
    const which = (name: string) => Bun.which(name, { PATH: "/usr/local/bin:/usr/bin:/bin" }) ?? "";
    const tools = { prlimit: which("prlimit"), bwrap: which(wrapperName) };
    const at = (highest: Isolation, ...missing: string[]) => new Sandbox(highest, missing, bun, tools);
    if (most <= Isolation.NONE) return at(Isolation.NONE, "no isolation: the agent is told to offer none");
    if (host.kind === "portable") return at(Isolation.NONE, "no isolation: this is not Linux");
    if (process.getuid?.() !== 0) {
      return at(
        Isolation.NONE,
        "no isolation: the agent is not root, so that tenants cannot have uids of their own",
      );
    }
    if (tools.prlimit === "")
      return at(Isolation.NONE, "no isolation: prlimit (util-linux) is not installed");
    if (!forbidNewPrivileges()) return at(Isolation.NONE, "no isolation: this kernel has no no_new_privs");
    const identity = { uid: uidOf(uidBase, 0), gid: uidOf(uidBase, 0) };
    const home = makeHome(homes, "trial", identity);
    try {
      const run = (rung: Isolation) =>
        tryOut(
          at(rung).confine({
            rung,
            identity,
            limits: { memoryBytes: 0, cpuMillis: 0, pids: 0, openFiles: 0 },
            // By its path: the working directory alone would be handed over by the agent, wherever it is.
            command: ["/bin/sh", "-c", 'cd "$0" && exec "$@"', home, bun.path, "--revision"],
            tenant: "trial",
            directory: home,
            home,
            cache: undefined,
            sharesUid: false,
            binds: [],
            readable: [bun.path],
          }),
          home,
          bun.env,
        );
      let why = await run(Isolation.USER);
      if (why !== undefined) {
        // Often only the Bun lies where no one else can reach it (a clone below /root): then the tenants get a copy.
        bun = placeBun(bun);
        why = await run(Isolation.USER);
      }
      if (why !== undefined) {
        return at(
          Isolation.NONE,
          `no isolation: another uid cannot run Bun in ${home} (${why}); let others search the directories above it, or give the agent a runtime directory like /run/warren`,
        );
      }
      if (!(await canSee(identity))) {
        return at(
          Isolation.NONE,
          "no isolation: the agent may not see the sockets of other users' processes, by which it knows whose a port is; a container needs CAP_SYS_PTRACE",
        );
      }
      if (most < Isolation.CGROUP)
        return at(Isolation.USER, "the agent is told to offer no higher rung than user");
      if (!host.limits) return at(Isolation.USER, ...host.missing);
      if (most < Isolation.NAMESPACE) {
        return at(Isolation.CGROUP, "the agent is told to offer no higher rung than cgroup");
      }
      if (tools.bwrap === "")
        return at(Isolation.CGROUP, "no namespaces: bubblewrap (bwrap) is not installed");
      why = await run(Isolation.NAMESPACE);
      if (why !== undefined)
        return at(Isolation.CGROUP, `no namespaces: bubblewrap does not work here (${why})`);
      return at(Isolation.NAMESPACE);
    } finally {
      removeTree(home);
    }
  }

  /** "namespace" */
  get name(): string {
    return rungName(this.highest);
  }

  confine(plan: ConfinementPlan): Confinement {
    const { rung, identity } = plan;
    const plain = { command: plan.command, identity: undefined, group: undefined, wrapper: undefined };
    if (rung < Isolation.USER) return plain;
    // Bubblewrap's own process and its init are of the tenant's uid too.
    const isWrapped = rung >= Isolation.NAMESPACE;
    const processes = (plan.limits.pids || defaultProcesses) + (isWrapped ? wrapperProcesses : 0);
    const ofUid = plan.sharesUid ? processes * mostSharers : processes;
    const openFiles = plan.limits.openFiles || defaultOpenFiles;
    const command = isWrapped ? bubblewrap(this.tools.bwrap, plan) : plan.command;
    return {
      command: limited(this.tools.prlimit, { processes: ofUid, openFiles }, this.#most, command),
      identity,
      group: rung >= Isolation.CGROUP ? { ...plan.limits, pids: processes } : undefined,
      wrapper: isWrapped ? wrapperName : undefined,
    };
  }
}

const wrapperProcesses = 2;
/** What programs read of the host to find libraries, names, certificates and the time. */
const systemFiles = [
  "/etc/ssl",
  "/etc/ca-certificates",
  "/etc/pki",
  "/etc/resolv.conf",
  "/etc/hosts",
  "/etc/nsswitch.conf",
  "/etc/localtime",
  "/etc/ld.so.cache",
  "/etc/alternatives",
  "/etc/mime.types",
];

/** The command with bubblewrap around it. Not `--die-with-parent`: tenants outlive their agent. */
function bubblewrap(bwrap: string, plan: ConfinementPlan): string[] {
  const { home, directory, binds } = plan;
  // "/bin" and the like: links into /usr on most systems, directories on others.
  const roots = ["/bin", "/sbin", "/lib", "/lib64"].flatMap((path) => {
    if (!existsSync(path)) return [];
    return lstatSync(path).isSymbolicLink() ? ["--symlink", `usr${path}`, path] : ["--ro-bind", path, path];
  });
  return [
    bwrap,
    ...["user", "pid", "ipc", "uts", "cgroup-try"].map((name) => `--unshare-${name}`),
    ...["--disable-userns", "--hostname", plan.tenant],
    ...["--ro-bind", "/usr", "/usr", ...roots],
    ...systemFiles.flatMap((path) => ["--ro-bind-try", path, path]),
    ...["--proc", "/proc", "--dev", "/dev", "--bind", join(home, "tmp"), "/tmp"],
    ...[home, plan.cache].flatMap((path) => (path === undefined ? [] : ["--bind", path, path])),
    ...[directory, ...plan.readable].flatMap((path) => ["--ro-bind", path, path]),
    ...binds.flatMap(({ source, target }) => ["--bind", source, target]),
    ...["--remount-ro", "/", "--chdir", directory, "--"],
    ...plan.command,
  ];
}

/** How the command ended, where the wrapper tells a signal as a code of 128 and more, as shells do. */
export function unwrapExit(end: ProcessEnd, wrapper: string | undefined): ProcessEnd {
  const number = (end.code ?? 0) - 128;
  if (wrapper === undefined || number <= 0) return end;
  const signal = Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
  return signal === undefined ? end : { signal };
}

/** HOME and TMPDIR of an instance: its one writable directory. */
export function makeHome(homes: string, id: string, identity: Identity | undefined): string {
  const home = join(homes, id);
  for (const path of [home, join(home, "tmp")]) {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    if (identity) chownSync(path, identity.uid, identity.gid);
  }
  return home;
}

/** Whether the agent sees what a process of that uid holds open. Root in a container need not. */
async function canSee(identity: Identity): Promise<boolean> {
  const child = Bun.spawn(["/bin/cat"], {
    ...identity,
    env: {},
    stdin: "pipe",
    stdout: "ignore",
    stderr: "ignore",
    timeout: trialMs,
    killSignal: "SIGKILL",
  });
  try {
    readlinkSync(`/proc/${child.pid}/fd/0`);
    return true;
  } catch (error) {
    return errnoOf(error) !== "EACCES";
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

/** Why it does not run, or undefined if it does. */
async function tryOut(
  { command, identity }: Confinement,
  directory: string,
  env: Readonly<Record<string, string>>,
): Promise<string | undefined> {
  try {
    const child = Bun.spawn([...command], {
      cwd: directory,
      env: { PATH: "/usr/bin:/bin", ...env },
      ...identity,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
      timeout: trialMs,
      killSignal: "SIGKILL",
    });
    const said = (await new Response(child.stderr).text()).trim().split("\n").at(-1);
    const code = await child.exited;
    return code === 0 ? undefined : said || `exit code ${code}`;
  } catch (error) {
    return messageOf(error);
  }
}
