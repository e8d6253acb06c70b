/** The events' stream as an operator asks for it, through the shipped command. */
import { expect, test } from "bun:test";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { openCellSecrets } from "@warren/common/tls/cell";
import { Role } from "@warren/proto/common";
import { openNatsStore } from "@warren/store";
import { startNatsServer } from "@warren/store/testing/nats-server";
import { warrenBin as warren } from "../src/cli.ts";

const hourMs = 3_600_000;
const nanos = 1_000_000;

test("options make the stream; one that differs is refused by name, with exit code 4, and left alone", async () => {
  const directory = await mkdtemp(join(tmpdir(), "warren-streams-"));
  await using nats = await startNatsServer();
  try {
    const secrets = await openCellSecrets(join(directory, "cell"), "local");
    const { directory: credentials } = await secrets.credentialsFor("s", Role.SCHEDULER);
    const ready = join(directory, "ready");
    const start = (...more: string[]) =>
      Bun.spawn(
        [
          ...[
            warren,
            "scheduler",
            "--name",
            "s",
            "--port",
            "0",
            "--nats",
            nats.url,
            "--credentials",
            credentials,
          ],
          ...["--state", join(directory, "s"), "--ready-file", ready, ...more],
        ],
        {
          env: { PATH: process.env.PATH!, HOME: directory, NO_COLOR: "1", WARREN_LOG: "silent" },
          stdout: "ignore",
          stderr: "pipe",
        },
      );
    const serve = async (...more: string[]) => {
      await rm(ready, { force: true });
      const child = start(...more);
      await waitUntil(() => readFile(ready, "utf8").catch(() => ""), {
        deadlineMs: 20_000,
        what: "it to serve",
      });
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
    };
    const chosen = [
      ...["--events-keep", "2h", "--events-max-bytes", "64MiB", "--events-max-count", "1000"],
      ...["--duplicate-window", "2m"],
    ];
    await serve(...chosen);
    /** Opens only what is exactly so. */
    const verify = async () => {
      const store = await openNatsStore({
        url: nats.url,
        cell: "local",
        eventsMaxAgeMs: 2 * hourMs,
        eventsMaxBytes: 64 * 1024 ** 2,
        eventsMaxCount: 1_000,
        duplicateWindowMs: 120_000,
      });
      await store.close();
    };
    await verify();

    const refused = start(...chosen, "--events-keep", "3h");
    expect(await refused.exited).toBe(4);
    const said = await new Response(refused.stderr).text();
    expect(said).toContain("WARREN_EVENTS");
    expect(said).toContain(`max_age is ${2 * hourMs * nanos}, needs ${3 * hourMs * nanos}`);
    expect(said).not.toContain("max_bytes");
    await verify();
    await serve(...chosen);

    const wrong = start("--nats-replicas", "2", "--duplicate-window", "1s");
    expect(await wrong.exited).toBe(2);
    const why = await new Response(wrong.stderr).text();
    expect(why).toContain("--nats-replicas: must be 1, 3 or 5");
    expect(why).toContain("--duplicate-window: must be at least 1m");
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}, 60_000);
