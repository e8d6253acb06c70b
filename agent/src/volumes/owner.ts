/** Who a volume's files belong to: an instance's uid is its own, so that they change hands with each start. */
import { chownSync, lstatSync } from "node:fs";
import type { Identity } from "../sandbox.ts";

/**
 * Gives the files to another uid. Only what belonged to the owner before changes hands, links are not followed, and the
 * directory itself comes last: one that was interrupted is done again.
 * @throws Error saying what could not be changed
 */
export async function handOver(directory: string, { uid, gid }: Identity): Promise<void> {
  const before = lstatSync(directory).uid;
  if (before === uid) return;
  const command = ["find", directory, "-xdev", "-mindepth", "1", "-uid", `${before}`];
  // What is root's may be a second name of a file elsewhere, where the kernel lets tenants make one.
  if (before === 0) command.push("(", "-type", "d", "-o", "-links", "1", ")");
  const child = Bun.spawn([...command, "-exec", "chown", "-h", `${uid}:${gid}`, "{}", "+"], {
    cwd: "/",
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const said = (await new Response(child.stderr).text()).trim().split("\n")[0];
  if ((await child.exited) !== 0)
    throw new Error(`the files of ${directory} cannot be given to uid ${uid}: ${said}`);
  chownSync(directory, uid, gid);
}
