import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { waitUntil } from "@warren/common/time";
import { InstanceState, Isolation } from "@warren/proto/common";
import { parseCpuTime, parseLsof, parsePs, portableKernel } from "../src/host/portable.ts";
import { type FakeScheduler, isAlive, TestSite } from "./support.ts";

describe("what ps and lsof print", () => {
  test("a line of ps, as Linux and macOS print it", () => {
    const linux = "   42     1    42    42 Ss   01:02:03  9000 Sat Nov 21 11:10:01 2026 my (odd) name";
    expect(parsePs(linux)).toEqual({
      pid: 42,
      ppid: 1,
      pgrp: 42,
      session: 42,
      state: "S",
      cpuTicks: 372_300,
      threads: 1,
      startTicks: Date.UTC(2026, 10, 21, 11, 10, 1) / 10,
      rssBytes: 9000 * 1024,
      comm: "my (odd) name",
    });
    const mac = "  501   1  501      0 S+     0:00.53   4096 Fri Jan  2 03:04:05 2026     /usr/bin/some app";
    expect(parsePs(mac)).toMatchObject({ pid: 501, session: 0, cpuTicks: 53, comm: "/usr/bin/some app" });
    for (const line of ["", "PID PPID", "1 2 3 4 S x 5 never a"]) expect(parsePs(line)).toBeUndefined();
  });

  test("CPU times", () => {
    expect(["0:00.07", "12:34", "1:00:00", "2-03:00:00"].map(parseCpuTime)).toEqual([
      7, 75_400, 360_000, 18_360_000,
    ]);
  });

  test("listening sockets, and the local end of connections", () => {
    const text = "p12\nn*:8080\nn127.0.0.1:9->127.0.0.1:53000\np13\nn[::1]:8081\nnnonsense\n";
    expect(parseLsof(text)).toEqual([
      { pid: 12, address: "0.0.0.0", port: 8080 },
      { pid: 12, address: "127.0.0.1", port: 9 },
      { pid: 13, address: "::1", port: 8081 },
    ]);
  });

  test("this very process is seen, and keeps its name", () => {
    const kernel = portableKernel();
    const first = kernel.read(process.pid)!;
    expect(first.rssBytes).toBeGreaterThan(1e6);
    expect(kernel.list().find((one) => one.pid === process.pid)?.startTicks).toBe(first.startTicks);
    const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    expect(kernel.ownerOf(server.port, [process.pid])).toEqual({ kind: "instance" });
    expect(kernel.ownerOf(server.port, [1]).kind).toBe("stranger");
    expect(kernel.listenersOf([process.pid])).toContainEqual({ address: "127.0.0.1", port: server.port });
    server.stop(true);
    expect(kernel.ownerOf(server.port, [process.pid])).toEqual({ kind: "nobody" });
  });
});

describe("an agent that sees its host by ps alone", () => {
  let site: TestSite;
  let scheduler: FakeScheduler;

  beforeAll(async () => {
    site = await TestSite.open();
    scheduler = await site.scheduler();
  });

  afterAll(() => site[Symbol.asyncDispose]());

  test("says what is missing, and goes on with its instances after kill -9", async () => {
    const options = site.options(scheduler.url, { hostKind: "portable", isolation: "auto", onStop: "keep" });
    const first = await site.spawnAgent(options);
    const instance = await first.t.start("hello.ts");
    await first.kill();
    const { host, isolation } = await waitUntil(() => scheduler.joins[0], { deadlineMs: 5_000 });
    expect(isolation).toEqual([Isolation.NONE]);
    expect(host).toMatchObject({ kind: "portable", canPageOut: false });
    expect(host!.missing.join()).toContain("no /proc");
    const second = await site.agent(scheduler.url, options);
    expect(await second.list()).toMatchObject([{ state: InstanceState.READY, pid: instance.pid }]);
    expect((await second.stop(instance.ref!.id))?.state).toBe(InstanceState.EXITED);
    expect(isAlive(instance.pid)).toBe(false);
    await second.agent.stop();
  });
});
