/** Runs a load in a process of its own, so that a busy test does not delay it. */
import { join } from "node:path";
import { withDeadline } from "@warren/common/time";
import type { Load } from "./load.ts";
import { type LoadOptions, type LoadReport, settingsOf } from "./options.ts";

/** Beyond the duration and the last request's deadline. */
const slackMs = 10_000;

/** As `startLoad`; its counts lag by about 50 ms. It ends with this process. */
export function startLoadProcess(options: LoadOptions): Load {
  const { durationMs, timeoutMs } = settingsOf(options);
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "child.ts")], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  child.stdin.write(`${JSON.stringify(options)}\n`);
  child.stdin.flush();
  let counts = { ok: 0, failed: 0 };
  const reading = (async () => {
    let report: LoadReport | undefined;
    for await (const line of linesOf(child.stdout)) {
      const said = JSON.parse(line) as { report?: LoadReport; ok: number; failed: number };
      report = said.report ?? report;
      counts = said.report ?? said;
    }
    if (!report) throw new Error(`the load's process ended without a report (${await child.exited})`);
    return report;
  })();
  const done = withDeadline(reading, durationMs + timeoutMs + slackMs, "the load").finally(() =>
    child.kill("SIGKILL"),
  );
  done.catch(() => {}); // a test that failed before does not wait for it
  return {
    get ok() {
      return counts.ok;
    },
    get failed() {
      return counts.failed;
    },
    done,
    async stop() {
      child.stdin.end();
      return done;
    },
  };
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of stream) {
    text += decoder.decode(bytes, { stream: true });
    const lines = text.split("\n");
    text = lines.pop()!;
    yield* lines;
  }
}
