/** Runs the CLI as a user would. */
import { join } from "node:path";

export const warrenBin = join(import.meta.dir, "..", "..", "cli", "bin", "warren");

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a verb to its end, at most `deadlineMs` (default 30 s). */
export function cli(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const env = { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "/", ...options.env };
  return run([warrenBin, ...args], { ...options, env });
}

/** What a verb prints on a terminal of so many columns. */
export async function cliOnTerminal(args: readonly string[], columns: number): Promise<string> {
  const decoder = new TextDecoder();
  let shown = "";
  const child = Bun.spawn([warrenBin, ...args], {
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "/", TERM: "xterm" },
    terminal: {
      cols: columns,
      rows: 40,
      data: (_, bytes) => {
        shown += decoder.decode(bytes, { stream: true });
      },
    },
    timeout: 30_000,
  });
  await child.exited;
  child.terminal?.close();
  return shown;
}

export interface RunOptions {
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  readonly deadlineMs?: number;
}

/** Runs a command to its end, at most `deadlineMs` (default 30 s), with that environment and no other. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const child = Bun.spawn([...command], {
    cwd: options.cwd,
    env: options.env ?? {},
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
