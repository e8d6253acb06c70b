/** `ONCE=1 make demo` as a user runs it, on both stores. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { startNatsServer } from "@warren/store/testing/nats-server";

async function demo(env: Record<string, string>): Promise<{ code: number; text: string }> {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "../src/demo/main.ts")], {
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "/", ONCE: "1", ...env },
    stdout: "pipe",
    stderr: "pipe",
    timeout: 170_000,
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, text: stdout + stderr };
}

test("the demo verifies itself on the embedded store", async () => {
  const { code, text } = await demo({});
  expect(text).toEndWith("demo: ok\n");
  expect(code).toBe(0);
}, 180_000);

test("the demo verifies itself on NATS JetStream", async () => {
  await using nats = await startNatsServer();
  const { code, text } = await demo({ NATS_URL: nats.url });
  expect(text).toEndWith("demo: ok\n");
  expect(code).toBe(0);
}, 180_000);
