/** Releases that nobody wants any more leave a real scheduler and its store; what somebody is about to use stays. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Warren } from "@warren/client";
import { createLogger } from "@warren/common/log";
import { waitUntil } from "@warren/common/time";
import { openCellSecrets } from "@warren/common/tls/cell";
import { Role } from "@warren/proto/common";
import { type Scheduler, startScheduler } from "@warren/scheduler";
import { openStore } from "@warren/store";
import { type NatsServer, startNatsServer } from "@warren/store/testing/nats-server";
import { writeApp } from "../src/apps.ts";

const graceMs = 1_500;
const hasNats = Bun.which("nats-server") !== null;

describe.each(["embedded", ...(hasNats ? ["nats"] : [])])("on the %s store", (kind) => {
  let directory: string;
  let nats: NatsServer | undefined;
  let scheduler: Scheduler;
  let warren: Warren;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "warren-releases-"));
    nats = kind === "nats" ? await startNatsServer() : undefined;
    await leaveOrphan();
    const secrets = await openCellSecrets(join(directory, "secrets"), "local");
    scheduler = await startScheduler({
      stateDirectory: join(directory, "state"),
      natsUrl: nats?.url,
      port: 0,
      credentials: (await secrets.credentialsFor("scheduler", Role.SCHEDULER)).credentials,
      config: { releases: { count: 1, bytes: 2 ** 30, graceMs } },
      version: "test",
      log: createLogger({ process: "scheduler" }),
      onFatal: (error) => {
        throw error;
      },
    });
    const { credentials } = await secrets.credentialsFor("client", Role.CLIENT);
    warren = new Warren({ url: scheduler.url, credentials });
  });

  afterAll(async () => {
    warren.close();
    await scheduler.stop();
    await nats?.[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  const open = () => openStore({ url: nats?.url, directory: join(directory, "state"), cell: "local" });
  /** Bytes of an upload that broke off before its record was written. */
  const leaveOrphan = async () => {
    await using store = await open();
    const bytes = crypto.getRandomValues(new Uint8Array(100));
    const name = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    await store.blobs.put(name, new Blob([bytes]).stream() as unknown as AsyncIterable<Uint8Array>);
  };
  const upload = async (tenant: string, mark: string): Promise<string> => {
    const app = await writeApp(directory, tenant, "hello");
    await writeFile(join(app, "mark"), mark);
    return (await warren.upload(tenant, app)).digest;
  };
  const apply = (key: string, digest: string) =>
    warren.apply({ key, source: { case: "release", value: digest } });
  const kept = async () => (await warren.scheduler.listReleases({})).releases.map(({ digest }) => digest);

  const untilGone = (digest: string) =>
    waitUntil(async () => !(await kept()).includes(digest) || undefined, {
      deadlineMs: 20_000,
      what: "it to go",
    });
  /** Until all that is here now has been looked at: what nobody has any use for is gone, and it came last. */
  const pass = async () => untilGone(await upload("nobody", crypto.randomUUID()));

  test("old ones go, in use or held they stay; one that went can come again", async () => {
    const shop: string[] = [];
    for (const mark of ["1", "2", "3", "4"]) {
      shop.push(await upload("shop", mark));
      await apply("shop", shop.at(-1)!);
    }
    const [first, second, third, fourth] = shop as [string, string, string, string];
    // Another tenant runs what this one had first.
    await apply("other", first);
    expect((await kept()).sort()).toEqual([...shop].sort());
    await pass();
    // Three are named (by the newest spec, by the one a rollback leads to, by the other tenant), and one more is kept.
    expect((await kept()).sort()).toEqual([...shop].sort());

    const fifth = await upload("shop", "5");
    await apply("shop", fifth);
    await pass();
    // Now the third is the newest that nothing names, and the second is one too many.
    expect((await kept()).sort()).toEqual([first, third, fourth, fifth].sort());
    const refused = await apply("shop", second).catch((error: Error) => error.message);
    expect(refused).toContain(second);

    expect(await upload("shop", "2")).toBe(second);
    await apply("shop", second);
    expect(await kept()).toContain(second);
  }, 60_000);

  test("of a deleted tenant nothing is left", async () => {
    const gone = await upload("gone", "1");
    await apply("gone", gone);
    await warren.scheduler.deleteTenant({ tenant: "gone" });
    await untilGone(gone);
  }, 60_000);

  test("the store holds the bytes of those that are kept, and no others", async () => {
    const listed = (await kept()).sort();
    await scheduler.stop();
    await using store = await open();
    const blobs = (await store.blobs.list()).map(({ name }) => `sha256:${name}`);
    expect(blobs.sort()).toEqual(listed);
    const records = [...(await store.state.load()).entries.keys()].filter((key) =>
      key.startsWith("release."),
    );
    expect(records.map((key) => key.replace("release.", "sha256:")).sort()).toEqual(listed);
  }, 60_000);
});
