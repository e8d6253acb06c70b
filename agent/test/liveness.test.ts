/** Liveness: the machine by itself, then the watch with real servers, real processes and a real standstill. */
import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { isQuick } from "@warren/common/testing/quick";
import { pause, toDuration, waitUntil } from "@warren/common/time";
import { LivenessSchema } from "@warren/proto/common";
import type { Answer } from "../src/ask.ts";
import {
  beginLiveness,
  type LivenessInput,
  type LivenessPolicy,
  type LivenessState,
  livenessPolicy,
  lookEveryMs,
  stepLiveness,
} from "../src/liveness.ts";
import { type WatchOptions, watchLiveness } from "../src/watch.ts";
import { fixtures } from "./support.ts";

const within = (what: string) => ({ deadlineMs: 10_000, what });
const status = (code: number): Answer => ({ kind: "status", status: code });
const none = (why: string): Answer => ({ kind: "none", why });

const probing: LivenessPolicy = {
  path: "/health",
  intervalMs: 1_000,
  timeoutMs: 200,
  threshold: 3,
  startPeriodMs: 0,
  heartbeatMs: 0,
};
const beating: LivenessPolicy = { ...probing, path: "", heartbeatMs: 1_000 };

/** Feeds a machine and keeps what it asked for. */
class Run {
  state: LivenessState;
  now = 0;
  probes = 0;
  readonly told: string[] = [];

  constructor(
    readonly policy: LivenessPolicy,
    readyForMs = 0,
    random = 0,
  ) {
    this.state = beginLiveness(policy, 0, readyForMs, random);
  }

  feed(input: LivenessInput): void {
    const { state, todo } = stepLiveness(this.policy, this.state, input, this.now);
    this.state = state;
    if (todo?.kind === "probe") this.probes++;
    if (todo?.kind === "unhealthy") this.told.push(todo.message);
  }

  /** Time passes, with looks as often as they should be; each probe is answered so, or not at all. */
  pass(ms: number, options: { answer?: Answer; paused?: boolean; beats?: boolean } = {}): this {
    const { answer, paused = false, beats = false } = options;
    const every = lookEveryMs(this.policy);
    for (const until = this.now + ms; this.now + every <= until; ) {
      this.now += every;
      if (beats) this.feed({ kind: "beat" });
      const before = this.probes;
      this.feed({ kind: "look", paused });
      if (this.probes > before && answer) {
        this.now += 1;
        this.feed({ kind: "answer", answer, paused });
      }
    }
    return this;
  }

  /** Nobody looks: the agent stands still. */
  standstill(ms: number): this {
    this.now += ms;
    return this;
  }
}

describe("the policy of a spec", () => {
  const of = (spec: MessageInitShape<typeof LivenessSchema>) => livenessPolicy(create(LivenessSchema, spec));

  test("none without a path and a heartbeat", () => {
    expect(livenessPolicy(undefined)).toBeUndefined();
    expect(of({ interval: toDuration(100) })).toBeUndefined();
  });

  test("the defaults are those that the contract names", () => {
    expect(of({ path: "/up" })).toEqual({
      path: "/up",
      intervalMs: 10_000,
      timeoutMs: 2_000,
      threshold: 3,
      startPeriodMs: 0,
      heartbeatMs: 0,
    });
  });

  test("what is given is taken", () => {
    const given = {
      interval: toDuration(100),
      timeout: toDuration(50),
      threshold: 1,
      startPeriod: toDuration(7),
    };
    expect(of({ ...given, heartbeat: toDuration(900) })).toEqual({
      path: "",
      intervalMs: 100,
      timeoutMs: 50,
      threshold: 1,
      startPeriodMs: 7,
      heartbeatMs: 900,
    });
  });

  test.each([
    [probing, 250],
    [{ ...probing, intervalMs: 60_000 }, 1_000],
    [{ ...probing, intervalMs: 60_000, heartbeatMs: 100 }, 25],
    [{ ...probing, intervalMs: 100, path: "", heartbeatMs: 2_000 }, 500],
  ])("it is looked at often enough, and not oftener: %#", (policy, every) => {
    expect(lookEveryMs(policy)).toBe(every);
  });
});

describe("probes", () => {
  test.each([
    ["503", status(503), "3 probes of /health in a row failed: it answered 503"],
    [
      "no answer",
      none("nothing within 200 ms"),
      "3 probes of /health in a row failed: nothing within 200 ms",
    ],
    ["404", status(404), "3 probes of /health in a row failed: it answered 404"],
    ["199", status(199), "3 probes of /health in a row failed: it answered 199"],
  ])("three failures in a row are told, once: %s", (_name, answer, message) => {
    const run = new Run(probing).pass(1_600, { answer });
    expect(run.told).toEqual([]);
    run.pass(60_000, { answer });
    expect(run.told).toEqual([message]);
    expect(run.probes).toBe(3);
  });

  test("with a threshold of 1 the sentence is of one", () => {
    const run = new Run({ ...probing, threshold: 1 }).pass(2_000, { answer: status(500) });
    expect(run.told).toEqual(["a probe of /health failed: it answered 500"]);
  });

  test.each([200, 204, 302, 399])("%d is healthy", (code) => {
    expect(new Run(probing).pass(20_000, { answer: status(code) }).told).toEqual([]);
  });

  test("one success in between begins the count anew", () => {
    const run = new Run(probing);
    for (let i = 0; i < 20; i++)
      run.pass(2_000, { answer: status(500) }).pass(1_000, { answer: status(200) });
    expect(run.told).toEqual([]);
  });

  test("as often as asked, from a first one within the first interval", () => {
    const run = new Run(probing, 0, 0.9).pass(750, { answer: status(200) });
    expect(run.probes).toBe(0);
    run.pass(99_500, { answer: status(200) });
    expect(run.probes).toBe(100);
  });

  test("V2: none while one is under way", () => {
    const run = new Run(probing).pass(30_000);
    expect(run.probes).toBe(1);
  });

  test("V3: those begun in the start period do not count", () => {
    const run = new Run({ ...probing, startPeriodMs: 10_000 }).pass(10_000, { answer: status(500) });
    expect(run.probes).toBe(10);
    run.pass(2_000, { answer: status(500) });
    expect(run.told).toEqual([]);
    run.pass(1_500, { answer: status(500) });
    expect(run.told).toHaveLength(1);
  });

  test("an adopted instance has had its start period", () => {
    const policy = { ...probing, startPeriodMs: 10_000 };
    expect(new Run(policy, 10_000).pass(4_000, { answer: status(500) }).told).toHaveLength(1);
    expect(new Run(policy, 5_000).pass(4_000, { answer: status(500) }).told).toEqual([]);
  });

  test("V3: not asked while frozen; the thaw begins a new interval and a new count", () => {
    const run = new Run(probing).pass(1_600, { answer: status(500) });
    expect(run.state.failures).toBe(2);
    const { probes } = run;
    run.pass(100_000, { paused: true });
    expect(run.probes).toBe(probes);
    run.pass(1_000, { answer: status(500) });
    expect(run.probes).toBe(probes);
    run.pass(2_000, { answer: status(500) });
    expect(run.told).toEqual([]);
    run.pass(1_000, { answer: status(500) });
    expect(run.told).toHaveLength(1);
  });

  test("V3: a probe that a freeze fell into does not count", () => {
    const run = new Run({ ...probing, threshold: 1 }).pass(250);
    expect(run.probes).toBe(1);
    run.pass(250, { paused: true });
    run.feed({ kind: "answer", answer: none("nothing within 200 ms"), paused: false });
    expect(run.told).toEqual([]);
    const frozenSince = new Run({ ...probing, threshold: 1 }).pass(250);
    frozenSince.feed({ kind: "answer", answer: none("nothing within 200 ms"), paused: true });
    expect(frozenSince.told).toEqual([]);
  });

  test("V4: a timeout that fired late does not count, one that fired in time does", () => {
    const run = new Run({ ...probing, threshold: 1 }).pass(250).standstill(301);
    run.feed({ kind: "answer", answer: none("nothing within 200 ms"), paused: false });
    expect(run.told).toEqual([]);
    run.pass(500).standstill(210);
    run.feed({ kind: "answer", answer: none("nothing within 200 ms"), paused: false });
    expect(run.told).toHaveLength(1);
  });

  test("V4: a standstill is not made up for with many probes at once", () => {
    const run = new Run(probing).pass(1_000, { answer: status(200) }).standstill(30_000);
    const { probes } = run;
    run.pass(1_000, { answer: status(200) });
    expect(run.probes - probes).toBeLessThanOrEqual(2);
  });
});

describe("heartbeats", () => {
  test("a silence that is too long is told, once", () => {
    const run = new Run(beating).pass(5_000, { beats: true });
    expect(run.told).toEqual([]);
    run.pass(1_000);
    expect(run.told).toEqual([]);
    run.pass(60_000);
    expect(run.told).toEqual(["no heartbeat for 1250 ms, and 1000 ms are allowed"]);
  });

  test("one that never beat is silent since it was ready, or since the start period's end", () => {
    expect(new Run(beating).pass(1_000).told).toEqual([]);
    expect(new Run(beating).pass(1_250).told).toHaveLength(1);
    const late = { ...beating, startPeriodMs: 5_000 };
    expect(new Run(late).pass(6_000).told).toEqual([]);
    expect(new Run(late).pass(6_250).told).toHaveLength(1);
  });

  test("V3: frozen it may be silent; the thaw begins a new silence", () => {
    const run = new Run(beating).pass(900, { beats: true }).pass(100_000, { paused: true }).pass(1_250);
    expect(run.told).toEqual([]);
    run.pass(250);
    expect(run.told).toHaveLength(1);
  });

  test("V4: an agent that stood still hears the silence only of the time that it looked", () => {
    const run = new Run(beating).pass(500, { beats: true }).pass(500).standstill(30_000);
    run.feed({ kind: "look", paused: false });
    expect(run.told).toEqual([]);
    run.pass(250);
    expect(run.told).toEqual([]);
    run.pass(500);
    expect(run.told).toHaveLength(1);
  });

  test("V4: a beat that was heard after the standstill is not dated into the future", () => {
    const run = new Run(beating).pass(500, { beats: true }).standstill(30_000);
    run.feed({ kind: "beat" });
    run.feed({ kind: "look", paused: false });
    run.pass(1_500);
    expect(run.told).toHaveLength(1);
  });

  test("with a probe beside them, either suffices", () => {
    const both = { ...beating, path: "/health" };
    expect(new Run(both).pass(10_000, { beats: true, answer: status(500) }).told[0]).toContain(
      "it answered 500",
    );
    expect(new Run(both).pass(10_000, { answer: status(200) }).told[0]).toContain("no heartbeat");
    expect(new Run(both).pass(10_000, { beats: true, answer: status(200) }).told).toEqual([]);
  });
});

describe("whatever happens", () => {
  const seeds = process.env.SEED
    ? [Number(process.env.SEED)]
    : Array.from({ length: 100 }, () => Math.floor(Math.random() * 2 ** 31));

  test(`V1 to V4 hold over 100 random lives; the first is SEED=${seeds[0]}`, () => {
    for (const seed of seeds) live(seed);
  });

  /** One life; what must hold is kept beside the machine by its own, simpler bookkeeping. */
  function live(seed: number): void {
    let at = seed >>> 0;
    const random = () => {
      at = (Math.imul(at, 1664525) + 1013904223) >>> 0;
      return (at >>> 8) / 2 ** 24;
    };
    const pick = (...of: number[]) => of[Math.floor(random() * of.length)]!;
    const policy: LivenessPolicy = {
      path: random() < 0.7 ? "/" : "",
      intervalMs: pick(100, 1_000, 10_000),
      timeoutMs: pick(50, 2_000),
      threshold: pick(1, 2, 3),
      startPeriodMs: pick(0, 0, 3_000),
      heartbeatMs: random() < 0.7 ? pick(100, 1_000, 5_000) : 0,
    };
    const run = new Run(policy, 0, random());
    const every = lookEveryMs(policy);
    let underWay: { began: number; counts: boolean } | undefined;
    let failures = 0;
    let quiet = 0; // ms that the agent looked on while nothing was heard
    let lookedAt = 0;
    let wasPaused = false;
    const say = (what: string) => `${what} (SEED=${seed})`;
    for (let i = 0; i < 2_000; i++) {
      run.now += random() < 0.02 ? random() * 30_000 : every * (0.9 + 0.2 * random());
      const before = { probes: run.probes, told: run.told.length };
      const dice = random();
      if (dice < 0.2) {
        run.feed({ kind: "beat" });
        quiet = 0;
      } else if (dice < 0.4 && underWay) {
        const answer = random() < 0.5 ? status(pick(200, 500)) : none("x");
        const paused = random() < 0.1;
        const tookMs = run.now - underWay.began;
        const healthy = answer.kind === "status" && answer.status === 200;
        const late = answer.kind === "none" && tookMs > policy.timeoutMs * 1.5;
        if (healthy) failures = 0;
        else if (underWay.counts && !paused && !late) failures++;
        underWay = undefined;
        run.feed({ kind: "answer", answer, paused });
        expect(run.told.length > before.told, say("told at the threshold, and only then")).toBe(
          before.told === 0 && failures >= policy.threshold,
        );
      } else {
        const paused = random() < 0.1;
        const gap = run.now - lookedAt;
        lookedAt = run.now;
        quiet = paused || wasPaused ? 0 : quiet + Math.min(gap, every * 1.5);
        if (paused) {
          failures = 0;
          if (underWay) underWay.counts = false;
        }
        wasPaused = paused;
        run.feed({ kind: "look", paused });
        if (run.probes > before.probes) {
          expect(underWay, say("V2: one probe at a time")).toBeUndefined();
          expect(paused, say("none while frozen")).toBe(false);
          underWay = { began: run.now, counts: run.now >= policy.startPeriodMs };
        }
        if (run.told.length > before.told) {
          expect(policy.heartbeatMs, say("silence only where heartbeats are expected")).toBeGreaterThan(0);
          expect(quiet, say("V4: silence that was looked at")).toBeGreaterThan(policy.heartbeatMs);
          expect(run.now, say("not in the start period")).toBeGreaterThan(policy.startPeriodMs);
        }
      }
      expect(run.told.length, say("V1: told once")).toBeLessThanOrEqual(1);
      if (before.told > 0) expect(run.probes, say("V1: nothing after it")).toBe(before.probes);
      expect(JSON.stringify(run.state).length, say("the state does not grow")).toBeLessThan(400);
    }
  }
});

describe("the watch", () => {
  const undo: (() => unknown)[] = [];
  afterEach(async () => {
    for (const one of undo.splice(0).reverse()) await one();
  });

  const quick: LivenessPolicy = {
    path: "/health",
    intervalMs: 100,
    timeoutMs: 2_000,
    threshold: 3,
    startPeriodMs: 0,
    heartbeatMs: 0,
  };

  function serve(fetch: (request: Request) => Response | Promise<Response>) {
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch });
    undo.push(() => server.stop(true));
    return server;
  }

  function watch(policy: LivenessPolicy, port: number, more: Partial<WatchOptions> = {}) {
    const told: string[] = [];
    const ending = new AbortController();
    undo.push(() => ending.abort());
    const watching = watchLiveness(
      {
        target: { address: "127.0.0.1", port },
        policy,
        isPaused: () => false,
        onUnhealthy: (message) => told.push(message),
        ...more,
      },
      ending.signal,
    );
    return { told, ending, beat: () => watching.beat() };
  }

  test("a server that answers is healthy; once it answers 503 three times it is not, and is asked no more", async () => {
    const asked: string[] = [];
    let code = 200;
    const server = serve((request) => {
      asked.push(`${request.method} ${new URL(request.url).pathname}`);
      return new Response("", { status: code });
    });
    const { told } = watch(quick, server.port!);
    await waitUntil(() => asked.length >= 5, within("five probes"));
    expect(told).toEqual([]);
    expect(asked[0]).toBe("GET /health");
    code = 503;
    await waitUntil(() => told.length > 0, within("unhealthy"));
    expect(told).toEqual(["3 probes of /health in a row failed: it answered 503"]);
    const { length } = asked;
    await pause(300);
    expect(asked).toHaveLength(length);
  });

  test("one that does not answer in time", async () => {
    let askedAtOnce = 0;
    let most = 0;
    const server = serve(async () => {
      most = Math.max(most, ++askedAtOnce);
      await pause(250);
      askedAtOnce--;
      return new Response("late");
    });
    const { told } = watch({ ...quick, timeoutMs: 100, threshold: 2 }, server.port!);
    await waitUntil(() => told.length > 0, within("unhealthy"));
    expect(told).toEqual(["2 probes of /health in a row failed: nothing within 100 ms"]);
    expect(most).toBeLessThanOrEqual(3);
  });

  test("nobody listens", async () => {
    const server = serve(() => new Response());
    const port = server.port!;
    await server.stop(true);
    const { told } = watch(quick, port);
    await waitUntil(() => told.length > 0, within("unhealthy"));
    expect(told).toEqual(["3 probes of /health in a row failed: nothing listens there"]);
  });

  test.each([
    ["no HTTP", "220 mail.example ESMTP\r\n", "that is not HTTP"],
    [
      "informational answers without an end",
      "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000),
      "that is not HTTP",
    ],
  ])("rule 6: one that answers with %s", async (_name, text, why) => {
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { open: (socket) => void socket.write(text), data() {} },
    });
    undo.push(() => server.stop(true));
    const { told } = watch({ ...quick, threshold: 1 }, server.port);
    await waitUntil(() => told.length > 0, within("unhealthy"));
    expect(told).toEqual([`a probe of /health failed: ${why}`]);
  });

  test("it ends with its signal: nothing is asked or told any more", async () => {
    let asked = 0;
    const server = serve(() => {
      asked++;
      return new Response("", { status: 500 });
    });
    const { told, ending } = watch({ ...quick, threshold: 2 }, server.port!);
    await waitUntil(() => asked > 0, within("a probe"));
    ending.abort();
    const before = asked;
    await pause(400);
    expect(asked).toBeLessThanOrEqual(before);
    expect(told).toEqual([]);
  });

  test("not while it is frozen: a stopped process is not asked, and is healthy again when it goes on", async () => {
    const app = Bun.spawn([process.execPath, join(fixtures, "elsewhere.ts")], { stdout: "pipe" });
    undo.push(() => app.kill("SIGKILL"));
    const first = new TextDecoder().decode((await app.stdout.getReader().read()).value);
    const port = Number(/port=(\d+)/.exec(first)?.[1]);
    let frozen = true;
    app.kill("SIGSTOP");
    const { told } = watch({ ...quick, timeoutMs: 100, threshold: 1 }, port, { isPaused: () => frozen });
    await pause(500);
    expect(told).toEqual([]);
    app.kill("SIGCONT");
    frozen = false;
    await pause(500);
    expect(told).toEqual([]);
    app.kill("SIGSTOP"); // hung, and nobody said so
    await waitUntil(() => told.length > 0, within("unhealthy"));
    expect(told).toEqual(["a probe of /health failed: nothing within 100 ms"]);
  });

  test("heartbeats keep it healthy; without them it is not", async () => {
    const { told, beat } = watch({ ...quick, path: "", heartbeatMs: 1_000 }, 1);
    const until = performance.now() + 2_000;
    while (performance.now() < until) {
      beat();
      await pause(20);
    }
    expect(told).toEqual([]);
    await waitUntil(() => told.length > 0, within("unhealthy"));
    expect(told[0]).toMatch(/^no heartbeat for \d+ ms, and 1000 ms are allowed$/);
  });

  test.skipIf(isQuick)(
    "an agent that was stopped for a while finds its tenants healthy, and sees one that is not",
    async () => {
      // A process of its own: the watch beside a tenant's server that another process holds, and heartbeats from it.
      const server = serve(() => new Response("ok"));
      const agent = Bun.spawn([process.execPath, join(fixtures, "worker-watch.ts")], {
        env: { PORT: String(server.port) },
        stdin: "pipe",
        stdout: "pipe",
      });
      undo.push(() => agent.kill("SIGKILL"));
      const output = agent.stdout.pipeThrough(new TextDecoderStream()).getReader();
      let said = "";
      const reading = (async () => {
        for (;;) {
          const { done, value } = await output.read();
          if (done) return;
          said += value;
        }
      })();
      const beating = setInterval(() => agent.stdin.write("."), 50);
      undo.push(() => clearInterval(beating));
      await waitUntil(() => said.includes("watching"), within("the watch to begin"));
      for (let i = 0; i < 2; i++) {
        agent.kill("SIGSTOP");
        await pause(2_200);
        agent.kill("SIGCONT");
        await pause(300);
      }
      expect(said).toBe("watching\n");
      clearInterval(beating);
      await waitUntil(() => said.includes("no heartbeat"), within("the silence to be told"));
      agent.kill("SIGKILL");
      await reading;
    },
  );
});
