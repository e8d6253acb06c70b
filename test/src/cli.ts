/** Runs the CLI as a user would. */
import { join } from "node:path";

export const warrenBin = join(import.meta.dir, "..", "..", "cli", "bin", "warren");

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a verb to its end, at most `deadlineMs` (default 30 s). */
export async function cli(
  args: readonly string[],
  options: { env?: Record<string, string>; cwd?: string; deadlineMs?: number } = {},
): Promise<Ran> {
  const child = Bun.spawn([warrenBin, ...args], {
    cwd: options.cwd,
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "/", ...options.env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: options.deadlineMs ?? 30_000,
    killSignal: "SIGTERM", // an agent takes its cgroups along
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}
