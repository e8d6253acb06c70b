/**
 * What an instance of its own uid may leave outside its directory: files in the host's temporary directories, System V
 * IPC. A later instance on the same port has the same uid, and must neither find them nor be charged for them. In a
 * namespace there is nothing to find: these are the tenant's own there.
 */
import { withDeadline } from "@warren/common/time";
import type { Identity } from "./sandbox.ts";

/** Directories of the host that anyone may write to. */
const openToAll = ["/tmp", "/var/tmp", "/dev/shm"];
const deadlineMs = 10_000;

/**
 * As that very uid, so that no trick with links makes it remove more than the tenant could have.
 * @throws DeadlineError when there was too much to remove in time; what is left is its uid's still
 */
export async function removeRemains({ uid, gid }: Identity): Promise<void> {
  const find = `find ${openToAll.join(" ")} -xdev -mindepth 1 -maxdepth 1 -uid "$0" -exec rm -rf {} +`;
  const child = Bun.spawn(["/bin/sh", "-c", `${find}; ipcrm --all`, String(uid)], {
    cwd: "/",
    env: { PATH: "/usr/bin:/bin" },
    uid,
    gid,
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
    timeout: deadlineMs,
    killSignal: "SIGKILL",
  });
  await withDeadline(child.exited, deadlineMs + 1_000, `removing what uid ${uid} left`);
}
