import { describe, expect, test } from "bun:test";
import { exitCodeOf, Reported, UserError } from "../src/exit.ts";
import { forEachOf } from "../src/several.ts";

describe("a verb on several tenants", () => {
  test("runs at most eight at once, each once, and all of them although some fail", async () => {
    const names = Array.from({ length: 40 }, (_, n) => `t${n}`);
    const ran: string[] = [];
    const told: string[] = [];
    let now = 0;
    let most = 0;
    const failure = await forEachOf(
      [...names, ...names],
      async (name) => {
        most = Math.max(most, ++now);
        await Promise.resolve();
        now--;
        ran.push(name);
        // The one that is told first is not the first of the command line.
        if (name === "t3") await new Promise((done) => setImmediate(done));
        if (name === "t3") throw new UserError("there is none", 3);
        if (name === "t7") throw new UserError("not now", 4);
      },
      { report: (message) => told.push(message) },
    ).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(Reported);
    expect(exitCodeOf(failure)).toBe(3);
    expect(told).toEqual(["t7: not now", "t3: there is none"]);
    expect(ran.toSorted()).toEqual(names.toSorted());
    expect(most).toBe(8);
  });

  test("of one, throws what it threw", async () => {
    const error = new UserError("there is none", 3);
    expect(await forEachOf(["one", "one"], () => Promise.reject(error)).catch((e: unknown) => e)).toBe(error);
  });

  test("begins none after an abort", async () => {
    const stop = new AbortController();
    const ran: string[] = [];
    const names = Array.from({ length: 20 }, (_, n) => `t${n}`);
    await forEachOf(
      names,
      async (name) => {
        ran.push(name);
        stop.abort();
      },
      { signal: stop.signal },
    );
    expect(ran.length).toBeLessThanOrEqual(8);
  });
});
