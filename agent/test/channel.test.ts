/** The agent's end of a tenant's channel, against everything a tenant may do to it on a real socket. */
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { type Channel, type ChannelOptions, openChannel, type Refusal } from "../src/channel.ts";
import { parseMessage } from "../src/messages.ts";
import { fixtures, recordingLog, silent } from "./support.ts";

const directory = mkdtempSync(join(tmpdir(), "warren-channel-"));
const undo: (() => unknown)[] = [];
afterEach(() => {
  for (const one of undo.splice(0).reverse()) one();
});
afterAll(() => rmSync(directory, { recursive: true }));

const within = (what: string) => ({ deadlineMs: 10_000, what });
const ready = '{"v":1,"type":"ready"}\n';
const heartbeat = '{"v":1,"type":"heartbeat"}\n';
const ok = '{"v":1,"type":"ok"}';
const unlimited = { perSecond: 1e9, burst: 1e9 };

let sockets = 0;
const freshPath = () => join(directory, `${sockets++}.sock`);

interface Recorded {
  readonly path: string;
  readonly channel: Channel;
  readonly refused: Refusal[];
  readonly said: { ready: number; heartbeat: number };
}

function open(more: Partial<ChannelOptions> = {}): Recorded {
  const refused: Refusal[] = [];
  const said = { ready: 0, heartbeat: 0 };
  const path = more.path ?? freshPath();
  const channel = openChannel({
    path,
    onReady: () => void said.ready++,
    onHeartbeat: () => void said.heartbeat++,
    onRefused: (why) => void refused.push(why),
    log: silent,
    ...more,
  });
  undo.push(() => channel.close());
  return { path, channel, refused, said };
}

/** A tenant without manners. */
async function connect(path: string) {
  let text = "";
  let closed = false;
  const socket = await Bun.connect({
    unix: path,
    socket: {
      data(_socket, bytes) {
        text += bytes.toString();
      },
      close() {
        closed = true;
      },
    },
  });
  undo.push(() => socket.terminate());
  const lines = () => text.split("\n").slice(0, -1);
  return {
    socket,
    lines,
    isClosed: () => closed,
    /** As much as the kernel takes, the rest when it takes more, until it is closed. */
    async send(bytes: string | Uint8Array) {
      let rest: Uint8Array = Buffer.from(bytes);
      await waitUntil(() => {
        if (!closed) rest = rest.subarray(Math.max(0, socket.write(rest)));
        return closed || rest.length === 0;
      }, within("everything to be sent"));
    },
    /** The answers, once there are that many. */
    async hears(count: number): Promise<string[]> {
      await waitUntil(() => lines().length >= count, within(`${count} answers`));
      return lines();
    },
    untilClosed: () => waitUntil(() => closed, within("the connection to be closed")),
  };
}

const malformed: Record<string, string | Uint8Array> = {
  "an empty line": "",
  "an empty line with CR": "\r",
  words: "ready",
  "half an object": '{"v":1,"type":"ready"',
  "two objects": '{"v":1,"type":"ready"}{"v":1,"type":"ready"}',
  "single quotes": "{'v':1,'type':'ready'}",
  null: "null",
  "a number": "1",
  "a string": '"ready"',
  "an array": '[{"v":1,"type":"ready"}]',
  "nothing in it": "{}",
  "no version": '{"type":"ready"}',
  "no type": '{"v":1}',
  "an unknown version": '{"v":2,"type":"ready"}',
  "a version of another type": '{"v":"1","type":"ready"}',
  "a huge version": '{"v":1e999,"type":"ready"}',
  "a version with a hundred digits": `{"v":${"9".repeat(100)},"type":"ready"}`,
  "an unknown type": '{"v":1,"type":"reload"}',
  "a type of another type": '{"v":1,"type":["ready"]}',
  "a type that every object has": '{"v":1,"type":"constructor"}',
  "a prototype": '{"__proto__":{"v":1,"type":"ready"}}',
  "a constructor": '{"constructor":{"prototype":{"v":1}},"type":"ready"}',
  "deep nesting": "[".repeat(4_000),
  "deep nesting of objects": '{"v":'.repeat(800),
  zeros: new Uint8Array(100),
  "bytes that are no UTF-8": Buffer.from('{"v":1,"type":"ready","x":"\xff\xfe"}', "latin1"),
  "UTF-8 that is cut off": Buffer.from('{"v":1,"type":"ready","x":"€').subarray(0, -1),
  "UTF-16": Buffer.from('{"v":1,"type":"ready"}', "utf16le"),
};

describe("rule 6: what is malformed is answered with an error line, counted, and nothing else", () => {
  test.each(Object.entries(malformed))("%s", async (_name, line) => {
    const { path, refused, said } = open();
    const tenant = await connect(path);
    await tenant.send(line);
    await tenant.send("\n");
    await tenant.hears(1);
    await tenant.send(ready);
    const [error, then] = await tenant.hears(2);
    expect(JSON.parse(error!)).toEqual({ v: 1, type: "error", message: expect.any(String) });
    expect(then).toBe(ok);
    expect(refused).toEqual(["malformed"]);
    expect(said).toEqual({ ready: 1, heartbeat: 0 });
    expect(({} as Record<string, unknown>).v).toBeUndefined();
  });

  test("the message says what is wrong, for the author", () => {
    const why = (text: string) => parseMessage(Buffer.from(text));
    expect(why("x")).toEqual({ kind: "malformed", why: "it is not JSON in UTF-8" });
    expect(why("[]")).toEqual({ kind: "malformed", why: "it is not a JSON object" });
    expect(why('{"v":3}')).toEqual({ kind: "malformed", why: 'its version "v" is not 1' });
    expect(why('{"v":1,"type":"x"}')).toMatchObject({ why: expect.stringContaining('"heartbeat"') });
  });

  test("it is logged a few times, not each time", async () => {
    const logged: Record<string, unknown>[] = [];
    const { path, refused } = open({ log: recordingLog((line) => logged.push(line)), bounds: unlimited });
    const tenant = await connect(path);
    for (let sent = 50; sent <= 500; sent += 50) {
      await tenant.send("nonsense\n".repeat(50));
      await tenant.hears(sent);
    }
    expect(refused).toHaveLength(500);
    expect(logged.length).toBeGreaterThan(0);
    expect(logged.length).toBeLessThanOrEqual(3);
  });

  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  test(`whatever bytes come, in whatever pieces, the channel takes the next message: SEED=${seed}`, async () => {
    const random = numbers(seed);
    const pieces = [
      '{"v":1,',
      '"type":',
      '"ready"',
      "}",
      "\n",
      "\r\n",
      "\0",
      "€",
      '{"__proto__":',
      "[[[[",
      "1e400",
    ];
    const { path, refused, said } = open({ bounds: { ...unlimited, lineBytes: 60 } });
    for (let round = 0; round < 100; round++) {
      const tenant = await connect(path);
      for (let i = 0; i < 20 && !tenant.isClosed(); i++) {
        const noise = Uint8Array.from({ length: Math.floor(random() * 40) }, () =>
          Math.floor(random() * 256),
        );
        await tenant.send(random() < 0.7 ? pieces[Math.floor(random() * pieces.length)]! : noise);
        if (random() < 0.2) await Bun.sleep(0); // another read for the channel
      }
      tenant.socket.terminate();
    }
    const before = said.heartbeat;
    const tenant = await connect(path);
    await tenant.send(heartbeat);
    expect(await tenant.hears(1)).toEqual([ok]);
    expect(said.heartbeat).toBe(before + 1);
    expect([...new Set(refused)].sort()).toEqual(["malformed", "too-long"]);
  });
});

describe("what is well formed", () => {
  test("CRLF, spaces, unknown fields, and text in any language", async () => {
    const { path, refused, said } = open();
    const tenant = await connect(path);
    await tenant.send('{"v":1,"type":"heartbeat"}\r\n');
    await tenant.send(' { "type" : "heartbeat", "v" : 1.0, "später": "€" } \n');
    expect(await tenant.hears(2)).toEqual([ok, ok]);
    expect(refused).toEqual([]);
    expect(said.heartbeat).toBe(2);
  });

  test("a line may come byte by byte, characters split", async () => {
    const { path, said } = open({ bounds: unlimited });
    const tenant = await connect(path);
    for (const byte of Buffer.from('{"v":1,"type":"heartbeat","x":"€𝄞"}\n')) {
      await tenant.send(Uint8Array.of(byte));
      await Bun.sleep(0); // another read for the channel
    }
    expect(await tenant.hears(1)).toEqual([ok]);
    expect(said.heartbeat).toBe(1);
  });

  test("several in one piece are answered in order", async () => {
    const { path, said } = open();
    const tenant = await connect(path);
    await tenant.send(`${heartbeat}x\n${ready}${heartbeat}`);
    const answers = await tenant.hears(4);
    expect(answers.map((line) => JSON.parse(line).type)).toEqual(["ok", "error", "ok", "ok"]);
    expect(said).toEqual({ ready: 1, heartbeat: 2 });
  });

  test("ready counts once, however often it is said, and every time is acknowledged", async () => {
    const { path, said } = open();
    for (const tenant of [await connect(path), await connect(path)]) {
      await tenant.send(ready + ready);
      expect(await tenant.hears(2)).toEqual([ok, ok]);
    }
    expect(said.ready).toBe(1);
  });

  test("rule 8: ready is not acknowledged when it could not be kept; said again, it counts", async () => {
    let full = true;
    let kept = 0;
    const { path } = open({
      onReady: () => {
        if (full) throw new Error("disk full");
        kept++;
      },
    });
    const first = await connect(path);
    await first.send(ready);
    await first.untilClosed();
    expect(first.lines()).toEqual([]);
    full = false;
    const second = await connect(path);
    await second.send(ready);
    expect(await second.hears(1)).toEqual([ok]);
    expect(kept).toBe(1);
  });

  test("one who leaves without waiting for the answer has said it", async () => {
    const { path, refused, said } = open();
    for (let count = 1; count <= 20; count++) {
      const tenant = await connect(path);
      await tenant.send(heartbeat + heartbeat);
      tenant.socket.terminate();
      await waitUntil(() => said.heartbeat === 2 * count, within("both heartbeats"));
    }
    expect(refused).toEqual([]);
  });

  test("a handler may close the channel; what was said after is not heard", async () => {
    const path = freshPath();
    let heard = 0;
    const { channel } = open({
      path,
      onHeartbeat: () => {
        heard++;
        channel.close();
      },
    });
    const tenant = await connect(path);
    await tenant.send(heartbeat + heartbeat);
    await tenant.untilClosed();
    expect(heard).toBe(1);
    expect(existsSync(path)).toBe(false);
  });
});

describe("rule 9: everything that a tenant may send has a bound", () => {
  test("a line has at most 4 KiB", async () => {
    const { path, refused, said } = open();
    const padded = (length: number) => `${heartbeat.trim().padEnd(length)}\n`;
    const tenant = await connect(path);
    await tenant.send(padded(4_096));
    expect(await tenant.hears(1)).toEqual([ok]);
    await tenant.send(padded(4_097));
    await tenant.untilClosed();
    expect(JSON.parse(tenant.lines()[1]!).message).toContain("4096 bytes");
    expect(refused).toEqual(["too-long"]);
    expect(said.heartbeat).toBe(1);
  });

  test("bytes without a line feed: the connection is closed, nothing is kept", async () => {
    const { path, refused } = open();
    const tenant = await connect(path);
    await tenant.send("x".repeat(50_000_000));
    await tenant.untilClosed();
    expect(refused).toEqual(["too-long"]);
  });

  test("a ninth connection is closed at once; when one leaves there is room again", async () => {
    const { path, refused } = open();
    const eight = await Promise.all(Array.from({ length: 8 }, () => connect(path)));
    for (const one of eight) await one.send(heartbeat);
    for (const one of eight) await one.hears(1);
    const ninth = await connect(path);
    await ninth.untilClosed();
    expect(refused).toEqual(["too-many"]);
    for (const one of eight) await one.send(heartbeat);
    for (const one of eight) expect(await one.hears(2)).toEqual([ok, ok]);
    eight[0]!.socket.terminate();
    await waitUntil(async () => {
      const again = await connect(path);
      await again.send(heartbeat);
      await waitUntil(() => again.isClosed() || again.lines().length > 0, within("an answer or the end"));
      return again.lines()[0] === ok;
    }, within("room again"));
  });

  test.each([
    ["heartbeats", heartbeat],
    ["empty lines", "\n"],
  ])("%s by the thousand: the connection is closed, and later all is well", async (_name, line) => {
    const { path, refused, said } = open({ bounds: { muteMs: 10 } });
    const tenant = await connect(path);
    await tenant.send(line.repeat(20_000));
    await tenant.untilClosed();
    expect(refused.at(-1)).toBe("too-fast");
    // The burst, and what a slow test let flow in meanwhile.
    expect(said.heartbeat + refused.length).toBeLessThan(2_000);
    await answersAgain(path);
  });

  test("rule 6: one that connects in a loop is refused by the kernel, not by the agent", async () => {
    const { path, refused } = open();
    const quiet = await connect(path);
    const env = { WARREN_SOCKET: path, FLOOD_MS: "2500" };
    const flood = Bun.spawn([process.execPath, join(fixtures, "worker-flood.ts")], { env, stdout: "pipe" });
    undo.push(() => flood.kill("SIGKILL"));
    const accepted = Number(await new Response(flood.stdout).text());
    // Without closing the door it is some ten thousand, and the event loop stands still meanwhile.
    expect(accepted).toBeGreaterThan(0);
    expect(accepted).toBeLessThan(3_000);
    expect(refused).toContain("too-fast");
    expect(quiet.isClosed()).toBe(false);
    await waitUntil(
      () => quiet.lines().length > 0 || quiet.send(heartbeat).then(() => false),
      within("an answer"),
    );
    await answersAgain(path);
  });

  test("one that never reads its answers is closed; nothing is kept for it", async () => {
    const { path, refused } = open({ bounds: unlimited });
    const tenant = await connect(path);
    tenant.socket.pause();
    await waitUntil(() => {
      tenant.socket.write(heartbeat.repeat(100));
      return refused.length > 0;
    }, within("the agent to have enough"));
    expect(refused).toEqual(["not-reading"]);
  });

  test("a connection that says nothing whole is closed", async () => {
    const { path, refused } = open({ bounds: { idleMs: 100 } });
    const silentOne = await connect(path);
    const halfLine = await connect(path);
    await halfLine.send('{"v":1');
    await silentOne.untilClosed();
    await halfLine.untilClosed();
    expect(refused).toEqual(["idle", "idle"]);
  });

  test("one that goes on speaking is not idle", async () => {
    const { path, refused } = open({ bounds: { idleMs: 400 } });
    const tenant = await connect(path);
    const until = performance.now() + 1_200;
    for (let count = 1; performance.now() < until; count++) {
      await tenant.send(heartbeat);
      await tenant.hears(count);
      await Bun.sleep(20);
    }
    expect(refused).toEqual([]);
  });
});

describe("its socket", () => {
  test("one that a killed agent left is replaced", async () => {
    const path = freshPath();
    const listen = `Bun.listen({ unix: ${JSON.stringify(path)}, socket: { data() {} } }); console.log("listens")`;
    const dead = Bun.spawn([process.execPath, "-e", listen], { stdout: "pipe" });
    await dead.stdout.getReader().read();
    dead.kill("SIGKILL");
    await dead.exited;
    expect(existsSync(path)).toBe(true);
    open({ path });
    await answersAgain(path);
  });

  test("nobody but its owner may connect", () => {
    expect(statSync(open().path).mode & 0o777).toBe(0o600);
  });

  test.skipIf(process.getuid?.() !== 0)(
    "rule 6: it belongs to the tenant's user, also after it was closed for a while",
    async () => {
      const { path, refused } = open({
        owner: { uid: 65_533, gid: 65_532 },
        bounds: { burst: 1, perSecond: 50, muteMs: 10 },
      });
      const facts = () => {
        const { uid, gid, mode } = statSync(path);
        return { uid, gid, mode: mode & 0o777 };
      };
      const expected = { uid: 65_533, gid: 65_532, mode: 0o600 };
      expect(facts()).toEqual(expected);
      await Promise.all(
        [connect(path), connect(path), connect(path)].map((one) => one.catch(() => undefined)),
      );
      await waitUntil(() => refused.includes("too-fast"), within("the door to be closed"));
      await waitUntil(() => existsSync(path), within("the door to be opened again"));
      expect(facts()).toEqual(expected);
    },
  );

  test("a path that no unix socket can have is named", () => {
    const path = join(directory, "x".repeat(108 - directory.length));
    expect(() => open({ path })).toThrow(/at most 107 bytes, and .*x has 109: choose a shorter/);
    expect(existsSync(path)).toBe(false);
    const longest = join(directory, "x".repeat(106 - directory.length));
    open({ path: longest });
    expect(existsSync(longest)).toBe(true);
  });

  test("close ends every connection and removes it; again, nothing happens; nothing is called later", async () => {
    const { path, channel, refused, said } = open();
    const tenant = await connect(path);
    await tenant.send(`${heartbeat}{"v":1`);
    await tenant.hears(1);
    channel.close();
    channel.close();
    await tenant.untilClosed();
    expect(existsSync(path)).toBe(false);
    expect(refused).toEqual([]);
    expect(said).toEqual({ ready: 0, heartbeat: 1 });
  });

  test("a door that cannot be opened again is tried until it can", async () => {
    const inside = join(directory, "inside");
    mkdirSync(inside);
    const path = join(inside, "a.sock");
    const { refused } = open({ path, bounds: { burst: 1, perSecond: 20, muteMs: 10 } });
    await Promise.all([connect(path), connect(path), connect(path)].map((one) => one.catch(() => undefined)));
    await waitUntil(() => refused.includes("too-fast"), within("the door to be shut"));
    rmSync(inside, { recursive: true });
    await Bun.sleep(50); // some tries fail
    mkdirSync(inside);
    await waitUntil(() => existsSync(path), within("the door to be open"));
  });

  test("one that is closed while its door is closed stays closed", async () => {
    const { path, channel, refused } = open({ bounds: { burst: 1, perSecond: 0.001, muteMs: 50 } });
    await connect(path);
    await connect(path).catch(() => undefined);
    await waitUntil(() => refused.includes("too-fast"), within("the door to be closed"));
    channel.close();
    await Bun.sleep(150);
    expect(existsSync(path)).toBe(false);
  });
});

describe("with @warren/worker at the other end", () => {
  const worker = join(import.meta.dir, "../../worker/src/index.ts");

  function tenant(path: string, env: Record<string, string>) {
    const child = Bun.spawn([process.execPath, join(fixtures, "worker-app.ts")], {
      env: { WARREN_SOCKET: path, WORKER: worker, ...env },
      stdout: "pipe",
      stderr: "inherit",
    });
    undo.push(() => child.kill("SIGKILL"));
    return child;
  }

  test("it is ready, it beats, it ends in order", async () => {
    const { path, said, refused } = open();
    const child = tenant(path, { EVERY_MS: "20", SHUTDOWN_MS: "20" });
    await waitUntil(() => said.heartbeat >= 5, within("five heartbeats"));
    expect(said.ready).toBe(1);
    child.kill("SIGTERM");
    expect(await new Response(child.stdout).text()).toBe("told\nshut down\n");
    expect(await child.exited).toBe(0);
    expect(refused).toEqual([]);
  });

  test("the agent's end is closed and opened again while it goes on", async () => {
    const path = freshPath();
    const child = tenant(path, { EVERY_MS: "20" });
    for (let agents = 0; agents < 3; agents++) {
      const { channel, said } = open({ path });
      await waitUntil(() => said.heartbeat >= 3, within("three heartbeats"));
      expect(said.ready).toBe(agents === 0 ? 1 : 0);
      channel.close();
      await Bun.sleep(50); // some heartbeats find nobody
    }
    expect(child.exitCode).toBeNull();
  });

  test("an agent that dies before it has kept the message hears it again from the same tenant", async () => {
    const path = freshPath();
    let tries = 0;
    const dying = open({
      path,
      onReady: () => {
        tries++;
        throw new Error("killed in the middle");
      },
    });
    tenant(path, {});
    await waitUntil(() => tries > 0, within("a first try"));
    dying.channel.close();
    const next = open({ path });
    await waitUntil(() => next.said.ready === 1, within("ready"));
  });
});

/** Once it has been too fast, a tenant is heard again after a while. */
async function answersAgain(path: string): Promise<void> {
  await waitUntil(async () => {
    const tenant = await connect(path).catch(() => undefined);
    await tenant?.send(heartbeat);
    await waitUntil(
      () => !tenant || tenant.isClosed() || tenant.lines().length > 0,
      within("an answer or the end"),
    );
    return tenant?.lines()[0] === ok;
  }, within("an answer again"));
}

/** Uniform in [0, 1), the same for the same seed. */
function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 2 ** 24;
  };
}
