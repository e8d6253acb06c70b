import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { startNatsServer } from "@warren/store/testing/nats-server";

test("the test server keeps its port and store over a restart, and leaves no process", async () => {
  const server = await startNatsServer();
  const { url, pid } = server;
  await server.restart();
  expect(server.url).toBe(url);
  expect(server.pid).not.toBe(pid);
  expect(existsSync(`/proc/${pid}`)).toBe(false);
  const last = server.pid;
  await server.stop();
  expect(server.pid).toBeUndefined();
  await server[Symbol.asyncDispose]();
  expect(existsSync(`/proc/${last}`)).toBe(false);
});

test("without a nats-server it says what is missing, or what the server said", async () => {
  await expect(startNatsServer({ command: "/bin/false" })).rejects.toThrow("did not become ready");
  await expect(startNatsServer({ args: ["--no-such-flag"] })).rejects.toThrow("did not become ready");
});
