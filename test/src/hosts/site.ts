/**
 * A machine for containers: a Docker daemon of its own in a network namespace of its own, so that neither the host's
 * firewall nor a daemon of the host is touched. It is gone when the test is, however that ends.
 */
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { identify } from "@warren/common/process";
import { waitUntil, withDeadline } from "@warren/common/time";
import { Docker } from "./docker.ts";
import { inNetns } from "./netns.ts";
import { ownerFile, sitePrefix, sweepSites } from "./remains.ts";

/** This machine cannot run containers; the message says what it lacks. */
export class NoContainersError extends Error {
  override readonly name = "NoContainersError";
}

export interface Site extends AsyncDisposable {
  /** Removed in the end. */
  readonly directory: string;
  readonly docker: Docker;
  /** The daemon, as clients name it. */
  readonly dockerHost: string;
  /** A command as it runs where published ports are on loopback. */
  inside(command: readonly string[]): string[];
}

const readyMs = 30_000;
const removeMs = 90_000;
const programs = [
  "ip",
  "nsenter",
  "unshare",
  "dockerd",
  "docker-compose",
  "nats-server",
  "curl",
  "tar",
] as const;

/** What is missing before anything is tried. */
export function missingForContainers(): string[] {
  if (process.platform !== "linux") return ["Linux"];
  if (process.getuid?.() !== 0) return ["root"];
  return programs.filter((program) => Bun.which(program) === null);
}

/** @throws NoContainersError with the daemon's last words when it does not start here */
export async function openSite(): Promise<Site> {
  const missing = missingForContainers();
  if (missing.length > 0) throw new NoContainersError(`missing: ${missing.join(", ")}`);
  await sweepSites();
  const directory = mkdtempSync(join(tmpdir(), sitePrefix));
  writeFileSync(join(directory, ownerFile), JSON.stringify(identify(process.pid)));
  const reaper = Bun.spawn([process.execPath, join(import.meta.dir, "reaper.ts"), directory], {
    stdin: "pipe",
    stdout: "inherit",
    stderr: "inherit",
    detached: true,
  });
  reaper.unref();
  const close = async () => {
    await reaper.stdin.end();
    const code = await withDeadline(reaper.exited, removeMs, `removing ${directory}`);
    if (code !== 0) throw new Error(`${directory} was not removed: see above`);
  };
  try {
    const docker = await startDaemon(directory);
    return {
      directory,
      docker,
      dockerHost: `unix://${socketOf(directory)}`,
      inside: (command) => inNetns(basename(directory), command),
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * What the daemon and its helpers write outside of the directories that they are told (keys, sockets, plug-ins) they write
 * into mounts that only they see.
 */
const ownRoot = `
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/etc,workdir=$0/etc-work" /etc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /opt
exec "$@"`;

const socketOf = (directory: string) => join(directory, "docker.sock");

async function startDaemon(directory: string): Promise<Docker> {
  const name = basename(directory);
  for (const command of [
    ["ip", "netns", "add", name],
    ["ip", "-n", name, "link", "set", "lo", "up"],
  ]) {
    const { exitCode, stderr } = Bun.spawnSync(command);
    if (exitCode !== 0) throw new NoContainersError(`${command.join(" ")}: ${stderr.toString().trim()}`);
  }
  for (const part of ["exec", "tmp", "etc", "etc-work"]) mkdirSync(join(directory, part));
  const config = join(directory, "daemon.json");
  writeFileSync(config, "{}");
  const path = join(directory, "dockerd.log");
  const log = openSync(path, "w");
  const daemon = Bun.spawn(
    inNetns(name, [
      "unshare",
      "--mount",
      "--propagation=private",
      "/bin/sh",
      "-ec",
      ownRoot,
      directory,
      "dockerd",
      `--data-root=${join(directory, "data")}`,
      `--exec-root=${join(directory, "exec")}`,
      `--pidfile=${join(directory, "docker.pid")}`,
      `--host=unix://${socketOf(directory)}`,
      "--bip=198.18.0.1/24",
      "--default-address-pool=base=198.18.16.0/20,size=24",
      `--cgroup-parent=${name}`,
      // As it is by default where cgroup v2 is all there is.
      "--default-cgroupns-mode=private",
      // Not that of the host's own daemon.
      `--config-file=${config}`,
    ]),
    {
      env: { PATH: process.env.PATH ?? "", TMPDIR: join(directory, "tmp") },
      stdin: "ignore",
      stdout: log,
      stderr: log,
      detached: true,
    },
  );
  closeSync(log);
  daemon.unref();
  const docker = new Docker(socketOf(directory));
  const outcome = await waitUntil(
    async () => (daemon.exitCode !== null ? "ended" : (await docker.answers()) ? "ready" : undefined),
    { deadlineMs: readyMs, what: "dockerd to answer" },
  ).catch((error: Error) => error.message);
  if (outcome !== "ready") {
    const words = readFileSync(path, "utf8").trim().split("\n").slice(-3).join("\n");
    throw new NoContainersError(`dockerd does not run here (${outcome}):\n${words}`);
  }
  return docker;
}
