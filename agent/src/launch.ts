/** From a plan to a process: what is taken from the node for it, in the order in which it must be on record. */
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { type InstanceRef, Isolation, ReadinessKind } from "@warren/proto/common";
import { listenAddress } from "./address.ts";
import { resolveCommand, tenantEnvironment } from "./command.ts";
import type { Group } from "./host/host.ts";
import type { LivenessPolicy } from "./liveness.ts";
import type { Mechanism } from "./mechanism.ts";
import { checkPlace, type Mount, type Mounted, makeWritable, mountAll } from "./mounts/mounts.ts";
import type { ReadinessSpec } from "./readiness.ts";
import type { HeldVolume, InstanceLimits, InstanceRecord } from "./records.ts";
import { type Identity, makeHome, uidOf } from "./sandbox.ts";
import { type Child, SpawnError } from "./spawn.ts";
import { handOver } from "./volumes/owner.ts";

export interface PlannedVolume extends HeldVolume {
  readonly path: string;
  /** It was made before: without it nothing is started. */
  readonly mustExist: boolean;
}

/** What is to be run; only needed until the spawn, and never written to disk. */
export interface StartPlan {
  readonly ref: InstanceRef;
  readonly source:
    | { readonly kind: "directory"; readonly path: string }
    | { readonly kind: "release"; readonly digest: string };
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly rung: Isolation;
  readonly limits: InstanceLimits;
  readonly sharesPort: boolean;
  /** Directories of its release that it may write to. */
  readonly writable: readonly string[];
  /** Its volumes, and where it is to find them. */
  readonly volumes: readonly PlannedVolume[];
  readonly readiness: ReadinessSpec;
  readonly liveness: LivenessPolicy | undefined;
  readonly graceMs: number;
  readonly drainMs: number;
}

/** What the record must say before there is a process. */
export type Taken = Pick<InstanceRecord, "port" | "group" | "uid" | "wrapper" | "volumes">;

export interface Launch {
  readonly taken: Taken;
  readonly group: Group;
  /** @throws SpawnError, Error */
  spawn(stdout: string, stderr: string): Child;
}

/** What must be done ahead of a launch, since it takes time: with its port, which makes its uid. */
export interface Files extends Mounted {
  readonly port: number;
}

/**
 * Makes the directories that the instance is to have besides its home, and puts them where it finds them.
 * @throws SpawnError by the tenant's fault, ConnectError or Error by the node's
 */
export async function prepareFiles(
  m: Mechanism,
  plan: StartPlan,
  directory: string,
  take: (taken: Partial<Taken>) => void,
): Promise<Files | undefined> {
  if (!needsFiles(plan)) return undefined;
  const { id } = plan.ref;
  const port = takePort(m, plan, take);
  const identity = identityOf(m, plan, port);
  const owner = plan.rung >= Isolation.USER ? identity : undefined;
  const home = makeHome(m.homes, id, owner);
  const isRelease = plan.source.kind === "release";
  for (const path of [...plan.writable, ...plan.volumes.map(({ path }) => path)])
    await checkPlace(directory, path);
  const mounts = [
    // A directory of the host may hold what its tenant must not read.
    ...(await makeWritable(plan.writable, isRelease ? directory : undefined, home, owner)),
    ...(await takeVolumes(m, plan, owner, take)),
  ];
  const gid = owner && isRelease ? identity.gid : undefined;
  const view = join(m.views, id);
  const { bun } = m.sandbox;
  const others = [home, bun.path, bun.binDirectory];
  const mounted = await mountAll({ level: plan.rung, directory, isRelease, gid, view, mounts, others });
  return { ...mounted, port };
}

const needsFiles = ({ writable, volumes }: StartPlan): boolean => writable.length + volumes.length > 0;

/** Each is on record before it is taken: it is given back with the instance, whatever comes in between. */
async function takeVolumes(
  m: Mechanism,
  { ref, volumes }: StartPlan,
  owner: Identity | undefined,
  take: (taken: Partial<Taken>) => void,
): Promise<Mount[]> {
  take({ volumes: volumes.map(({ id, name, limitBytes }) => ({ id, name, limitBytes })) });
  // Without a uid of its own an instance is the agent's; the files must be, too, to be told from others' at the next start.
  const whose = owner ?? (process.getuid?.() === 0 ? { uid: 0, gid: 0 } : undefined);
  const mounts: Mount[] = [];
  for (const { path, limitBytes, ...wanted } of volumes) {
    const source = await m.volumes.take({ tenant: ref.tenant, ...wanted }, limitBytes, ref.id);
    if (whose) await handOver(source, whose);
    mounts.push({ path, source });
  }
  return mounts;
}

function takePort(m: Mechanism, plan: StartPlan, take: (taken: Partial<Taken>) => void): number {
  const { id, tenant } = plan.ref;
  const port = plan.sharesPort ? m.ports.takeShared(tenant, id) : m.ports.take(id);
  take({ port });
  return port;
}

/** Those that share a port share the uid too: the kernel deals out connections among processes of one uid only. */
function identityOf(m: Mechanism, { source }: StartPlan, port: number): Identity {
  const uid = uidOf(m.uidBase, port);
  const gid = source.kind === "release" ? m.releases.gid(source.digest) : undefined;
  return { uid, gid: gid ?? uid };
}

/**
 * Takes ports and makes the group and the home for it, and tells it the trace that it is started in. What was taken is noted at once by `take`, so that it is given
 * back if the rest fails.
 * @throws NothingToRunError by the tenant's fault, ConnectError or Error by the node's
 */
export function prepareLaunch(
  m: Mechanism,
  plan: StartPlan,
  { directory, binds, port: taken }: Partial<Files> & { directory: string },
  traceparent: string | undefined,
  take: (taken: Partial<Taken>) => void,
): Launch {
  const { id, tenant } = plan.ref;
  const { bun } = m.sandbox;
  const command = resolveCommand(directory, plan.command, bun.path);
  const port = taken ?? takePort(m, plan, take);
  const identity = identityOf(m, plan, port);
  const isOwned = plan.rung >= Isolation.USER;
  take(isOwned ? { uid: identity.uid } : {});
  const home = join(m.homes, id);
  const cache = m.caches.hold(plan.ref, isOwned ? identity : undefined);
  const confinement = m.sandbox.confine({
    rung: plan.rung,
    identity,
    limits: plan.limits,
    sharesUid: plan.sharesPort,
    command,
    tenant,
    directory,
    home,
    cache,
    binds: binds ?? [],
    readable: [bun.path, bun.binDirectory, ...(usesChannel(plan) ? [makeSocketDirectory(m, id)] : [])],
  });
  const env = tenantEnvironment({
    env: plan.env,
    host: listenAddress(m.tenantHost),
    port,
    sharesPort: plan.sharesPort,
    instance: id,
    tenant,
    node: m.node,
    home,
    cache,
    tmp: join(home, "tmp"),
    socket: usesChannel(plan) ? socketPath(m, id) : undefined,
    heartbeatMs: plan.liveness?.heartbeatMs ?? 0,
    traceparent,
    bun,
  });
  checkProgram(command[0]!, directory, env.PATH!);
  makeHome(m.homes, id, confinement.identity);
  const group = m.host.createGroup(id, confinement.group);
  return {
    taken: { port, uid: confinement.identity?.uid, group: group.path, wrapper: confinement.wrapper },
    group,
    spawn: (stdout, stderr) =>
      m.spawner.spawn({
        command: confinement.command,
        identity: confinement.identity,
        directory,
        env,
        stdout,
        stderr,
        group,
      }),
  };
}

/** Around another program the command would fail too, but say so less clearly. */
function checkProgram(program: string, directory: string, path: string): void {
  if (Bun.which(program, { PATH: path, cwd: directory }) !== null) return;
  throw new SpawnError(`cannot run ${program}: there is no such program (in ${directory})`);
}

/** Whether the tenant is to say something to the agent. */
export function usesChannel({
  readiness,
  liveness,
}: Pick<InstanceRecord, "readiness" | "liveness">): boolean {
  return readiness.kind === ReadinessKind.MESSAGE || (liveness?.heartbeatMs ?? 0) > 0;
}

/** In a directory of its own, the agent's, so that the tenant cannot put anything else in its place. */
export function socketPath(m: Mechanism, id: string): string {
  return join(socketDirectory(m, id), "agent");
}

export function socketDirectory(m: Mechanism, id: string): string {
  return join(m.sockets, id);
}

function makeSocketDirectory(m: Mechanism, id: string): string {
  const path = socketDirectory(m, id);
  mkdirSync(path, { recursive: true });
  chmodSync(path, 0o711); // whatever the umask is
  return path;
}
