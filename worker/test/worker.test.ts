/**
 * The library in real processes, from its sources under Bun and as the built package under both Bun and Node, against an
 * agent made of nothing but the README's protocol.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { heartbeat, ready } from "../src/index.ts";

const directory = mkdtempSync(join(tmpdir(), "warren-worker-"));
const root = join(import.meta.dir, "../..");
const dist = join(directory, "dist");
const children: Bun.Subprocess[] = [];

beforeAll(() => {
  const built = Bun.spawnSync([process.execPath, join(import.meta.dir, "../build.ts"), dist]);
  if (built.exitCode !== 0) throw new Error(`${built.stdout}${built.stderr}`);
});

afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(directory, { recursive: true });
});

const sources = join(import.meta.dir, "../src/index.ts");
const runtimes = [
  { name: "Bun, from the sources", command: process.execPath, library: sources },
  { name: "Bun", command: process.execPath, library: join(dist, "index.js") },
  { name: "Node", command: Bun.which("node"), library: join(dist, "index.js") },
];

let sockets = 0;
const freshSocket = () => join(directory, `${sockets++}.sock`);

type Reply = string | undefined;
const ok = '{"v":1,"type":"ok"}\n';

/** Listens as the README says, keeps each line and answers it; undefined closes the connection instead. */
function agentAt(unix: string, reply: (line: string) => Reply = () => ok) {
  const lines: string[] = [];
  const waiting: (() => void)[] = [];
  const listener = Bun.listen<{ text: string }>({
    unix,
    socket: {
      open(socket) {
        socket.data = { text: "" };
      },
      data(socket, bytes) {
        socket.data.text += bytes.toString();
        for (let end = socket.data.text.indexOf("\n"); end >= 0; end = socket.data.text.indexOf("\n")) {
          const line = socket.data.text.slice(0, end);
          socket.data.text = socket.data.text.slice(end + 1);
          lines.push(line);
          const answer = reply(line);
          if (answer === undefined) socket.terminate();
          else socket.write(answer);
        }
        for (const wake of waiting.splice(0)) wake();
      },
    },
  });
  return {
    lines,
    /** Resolves when that many lines have come in all. */
    async heard(count: number) {
      while (lines.length < count) await new Promise<void>((resolve) => waiting.push(resolve));
    },
    stop: () => listener.stop(true),
  };
}

for (const { name, command, library } of runtimes)
  describe.skipIf(!command)(`under ${name}`, () => {
    function start(deed: string, env: Record<string, string> = {}) {
      const child = Bun.spawn([command!, join(import.meta.dir, "fixtures/app.mjs")], {
        env: { LIBRARY: library, DO: deed, ...env },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      children.push(child);
      const output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
      const errors = new Response(child.stderr).text();
      let said = "";
      const hear = async () => {
        const { done, value } = await output.read();
        said += value ?? "";
        return !done;
      };
      return {
        child,
        async says(text: string) {
          while (!said.includes(text)) if (!(await hear())) throw new Error(`it never said ${text}: ${said}`);
        },
        /** Everything that it said, and how it ended. */
        async ended() {
          while (await hear());
          return { code: await child.exited, signal: child.signalCode, said, errors: await errors };
        },
      };
    }

    test("without an agent every call is a no-op", async () => {
      expect(await start("ready").ended()).toMatchObject({ code: 0, said: "ready\nbegun\n", errors: "" });
      expect(await start("beat-and-end").ended()).toMatchObject({ code: 0, said: "begun\n", errors: "" });
    });

    test("ready() is told once, however often it is called", async () => {
      const unix = freshSocket();
      const agent = agentAt(unix);
      const { code, said } = await start("ready", { WARREN_SOCKET: unix }).ended();
      agent.stop();
      expect({ code, said }).toEqual({ code: 0, said: "ready\nbegun\n" });
      expect(agent.lines.map((line) => JSON.parse(line))).toEqual([{ v: 1, type: "ready" }]);
    });

    test("ready() waits for an agent that is being replaced: a dead socket, one that hangs up, then a new one", async () => {
      const unix = freshSocket();
      let tries = 0;
      const dying = agentAt(unix, () => {
        tries++;
        return undefined;
      });
      const app = start("ready", { WARREN_SOCKET: unix });
      await dying.heard(2);
      dying.stop();
      writeFileSync(unix, ""); // what a killed agent leaves: a path where nobody listens
      await Bun.sleep(50); // some tries meet it
      rmSync(unix);
      const next = agentAt(unix);
      expect(await app.ended()).toMatchObject({ code: 0, said: "ready\nbegun\n" });
      next.stop();
      expect(tries).toBeGreaterThanOrEqual(2);
      expect(next.lines).toEqual(['{"v":1,"type":"ready"}']);
    });

    test("ready() rejects after its deadline, saying why", async () => {
      const env = { WARREN_SOCKET: freshSocket(), DEADLINE_MS: "150" };
      const { said } = await start("ready", env).ended();
      expect(said).toContain(
        "could not be told within 150 ms that this app is ready: no agent is there (ENOENT)",
      );
    });

    test("ready() rejects when the agent never answers", async () => {
      const unix = freshSocket();
      const agent = agentAt(unix, () => "");
      const { said } = await start("ready", { WARREN_SOCKET: unix, DEADLINE_MS: "200" }).ended();
      agent.stop();
      expect(said).toMatch(/not ready: .* within 200 ms .*: no answer within \d+ ms/);
    });

    test("ready() does not try again what the agent refused", async () => {
      const unix = freshSocket();
      const agent = agentAt(unix, () => '{"v":1,"type":"error","message":"too old"}\n');
      const { said } = await start("ready", { WARREN_SOCKET: unix }).ended();
      agent.stop();
      expect(said).toContain("not ready: the agent refused ready(): too old");
      expect(agent.lines).toHaveLength(1);
    });

    test("an answer that is none is no consent", async () => {
      const unix = freshSocket();
      const answers = ["null\n", "[]\n", "\x80\n", "x".repeat(5_000), ok];
      const agent = agentAt(unix, () => answers.shift());
      const { said } = await start("ready", { WARREN_SOCKET: unix }).ended();
      agent.stop();
      expect(said).toBe("ready\nbegun\n");
      expect(agent.lines).toHaveLength(5);
    });

    test("a rejection that nobody waits for does not end the app", async () => {
      const env = { WARREN_SOCKET: freshSocket(), DEADLINE_MS: "50" };
      expect(await start("ready-unheeded", env).ended()).toMatchObject({ code: 0, said: "begun\nalive\n" });
    });

    test("heartbeats go on across agents, and end when told", async () => {
      const unix = freshSocket();
      const first = agentAt(unix);
      const app = start("beat", { WARREN_SOCKET: unix });
      await first.heard(3);
      first.stop();
      const second = agentAt(unix);
      await second.heard(3);
      app.child.kill("SIGUSR2");
      await app.says("stopped");
      const heard = second.lines.length;
      await Bun.sleep(200);
      expect(second.lines.length).toBeLessThanOrEqual(heard + 1);
      second.stop();
      expect(new Set([...first.lines, ...second.lines])).toEqual(new Set(['{"v":1,"type":"heartbeat"}']));
      app.child.kill("SIGKILL");
    });

    test("one heartbeat at a time: an agent that does not answer is not flooded", async () => {
      const unix = freshSocket();
      const agent = agentAt(unix, () => "");
      const app = start("beat", { WARREN_SOCKET: unix });
      await agent.heard(1);
      await Bun.sleep(300);
      expect(agent.lines).toHaveLength(1);
      agent.stop();
      app.child.kill("SIGKILL");
    });

    test("a heartbeat does not keep the process alive, answered or not", async () => {
      const unix = freshSocket();
      const agent = agentAt(unix, () => "");
      expect(await start("beat-and-end", { WARREN_SOCKET: unix }).ended()).toMatchObject({ code: 0 });
      agent.stop();
    });

    test("no heartbeat comes of an event loop that hangs", async () => {
      const unix = freshSocket();
      const agent = agentAt(unix);
      const app = start("beat-and-hang", { WARREN_SOCKET: unix });
      await agent.heard(2);
      app.child.kill("SIGUSR2");
      await app.says("hanging");
      const heard = agent.lines.length;
      await Bun.sleep(200);
      expect(agent.lines.length).toBeLessThanOrEqual(heard + 1);
      agent.stop();
      app.child.kill("SIGKILL");
    });

    test.each(["SIGTERM", "SIGINT"] as const)("%s runs every handler once, then exits 0", async (signal) => {
      const app = start("shutdown");
      await app.says("begun");
      app.child.kill(signal);
      await app.says(`first ${signal}`);
      app.child.kill(signal);
      const { code, said } = await app.ended();
      expect(code).toBe(0);
      expect(said).toBe(`begun\nfirst ${signal}\nsecond ${signal}\nfirst done\n`);
    });

    test("of two handlers one throws: the other is done, the code is 1, the error is said", async () => {
      const app = start("shutdown-throws");
      await app.says("begun");
      app.child.kill("SIGTERM");
      const { code, said, errors } = await app.ended();
      expect({ code, said }).toEqual({ code: 1, said: "begun\nother done\n" });
      expect(errors).toContain("broken handler");
    });

    test("rule 9: a handler that hangs is cut by its deadline", async () => {
      const app = start("shutdown-hangs");
      await app.says("begun");
      app.child.kill("SIGTERM");
      const { code, said, errors } = await app.ended();
      expect({ code, said }).toEqual({ code: 1, said: "begun\nother done\n" });
      expect(errors).toContain("not done within 100 ms");
    });

    test("with its last handler taken back, a signal ends it as it would have", async () => {
      const app = start("shutdown-taken-back");
      await app.says("begun");
      app.child.kill("SIGTERM");
      expect(await app.ended()).toMatchObject({ signal: "SIGTERM", said: "begun\n" });
    });

    test("a shutdown handler does not keep the process alive", async () => {
      expect(await start("shutdown-and-end").ended()).toMatchObject({ code: 0, said: "begun\n" });
    });
  });

describe("in this process", () => {
  test("without WARREN_SOCKET ready() resolves and heartbeat() can be stopped", async () => {
    expect(process.env.WARREN_SOCKET).toBeUndefined();
    expect(await ready()).toBeUndefined();
    heartbeat()();
  });

  test("ready() that failed can be tried anew; once told, it stays told", async () => {
    const unix = freshSocket();
    process.env.WARREN_SOCKET = unix;
    try {
      const failed = await ready({ deadlineMs: 30 }).catch((error: Error) => error.message);
      expect(failed).toContain("could not be told within 30 ms");
      const agent = agentAt(unix);
      await ready({ deadlineMs: 10_000 });
      agent.stop();
      expect(await ready({ deadlineMs: 30 })).toBeUndefined();
      expect(agent.lines).toHaveLength(1);
    } finally {
      delete process.env.WARREN_SOCKET;
    }
  });

  test.each([0, 9, -1, Number.NaN])("heartbeat(%d) is a mistake", (everyMs) => {
    expect(() => heartbeat(everyMs)).toThrow(RangeError);
  });
});

describe("the built package", () => {
  test("has no dependencies, and its manifest names what is there", async () => {
    const manifest = await Bun.file(join(dist, "package.json")).json();
    expect(manifest).not.toHaveProperty("dependencies");
    expect(manifest).not.toHaveProperty("private");
    for (const file of Object.values<string>(manifest.exports["."])) {
      expect(await Bun.file(join(dist, file)).exists()).toBe(true);
    }
  });

  test("its types are found by a consumer with Node's module resolution, and say what they should", () => {
    const consumer = join(directory, "consumer.ts");
    writeFileSync(
      consumer,
      `import { heartbeat, onShutdown, ready, type ShutdownSignal } from "./dist/index.js";
       const told: Promise<void> = ready({ deadlineMs: 1 });
       const stop: () => void = heartbeat(1000);
       const back: () => void = onShutdown(async (signal: ShutdownSignal) => {}, { deadlineMs: 5 });
       // @ts-expect-error
       onShutdown("not a function");
       export { told, stop, back };`,
    );
    const flags = "--ignoreConfig --noEmit --strict --module nodenext --target esnext --types".split(" ");
    const checked = Bun.spawnSync([process.execPath, "x", "--no-install", "tsc", ...flags, "", consumer], {
      cwd: root,
    });
    expect(`${checked.stdout}${checked.stderr}`).toBe("");
    expect(checked.exitCode).toBe(0);
  });

  test("loads no builtin until it is needed", () => {
    expect(readFileSync(join(dist, "index.js"), "utf8")).not.toMatch(/^import /m);
  });
});
