import { describe, expect, test } from "bun:test";
import { ExitReason, InstanceMode, InstanceState } from "@warren/proto/common";
import { begin, bury, type Effect, type Input, type MachineState, resume, step } from "../src/machine.ts";

/** Runs inputs from the beginning; answers the end and all effects by kind. */
function run(...inputs: Input[]) {
  let { state, effects } = begin(1000);
  const all: Effect[] = [...effects];
  let now = 1000;
  for (const input of inputs) {
    now += 10;
    ({ state, effects } = step(state, input, now));
    all.push(...effects);
  }
  const tells = all.flatMap((effect) => (effect.kind === "tell" ? [[effect.from, effect.to]] : []));
  const exit = all.flatMap((effect) => (effect.kind === "tell" && effect.exit ? [effect.exit] : []))[0];
  return { state, all, kinds: all.map((effect) => effect.kind), tells, exit };
}

const { PENDING, STARTING, READY, DRAINING, STOPPING, EXITED } = InstanceState;
const { ACTIVE, FROZEN, PAGED_OUT } = InstanceMode;
const prepared: Input = { kind: "prepared" };
const spawned: Input = { kind: "spawned" };
const ready: Input = { kind: "ready" };
const gone: Input = { kind: "gone" };
const stop = (reason = ExitReason.KILLED, graceMs = 5000, drainMs = 0): Input => ({
  kind: "stop",
  cause: { reason },
  graceMs,
  drainMs,
});
const freeze: Input = { kind: "freeze", pageOut: false };
const frozen: Input = { kind: "frozen", pagedOut: false };
const thaw: Input = { kind: "thaw" };
const exited = (code: number): Input => ({ kind: "process-exited", end: { code } });

describe("the machine of one instance", () => {
  test("a start that goes well", () => {
    const { state, kinds, tells } = run(prepared, spawned, ready);
    expect(state.phase).toBe("ready");
    expect(kinds).toEqual(["prepare", "spawn", "tell", "probe", "tell", "settle", "watch"]);
    expect(tells).toEqual([
      [PENDING, STARTING],
      [STARTING, READY],
    ]);
  });

  test("M2: a stop is told at once, EXITED only when nothing is left", () => {
    const stopped = run(prepared, spawned, ready, stop(), exited(0));
    expect(stopped.state.phase).toBe("stopping");
    expect(stopped.tells.at(-1)).toEqual([READY, STOPPING]);
    const over = run(prepared, spawned, ready, stop(), exited(0), gone);
    expect(over.tells.at(-1)).toEqual([STOPPING, EXITED]);
    expect(over.exit).toEqual({ reason: ExitReason.KILLED, code: 0 });
  });

  test("a crash is told once, as the way from READY to EXITED", () => {
    const { tells, exit, kinds } = run(prepared, spawned, ready, exited(3), gone);
    expect(tells.at(-1)).toEqual([READY, EXITED]);
    expect(exit).toMatchObject({ reason: ExitReason.CRASHED, code: 3 });
    expect(kinds.filter((kind) => kind === "end")).toHaveLength(1);
  });

  test("code 0 is exited-clean; before readiness the message says so", () => {
    expect(run(prepared, spawned, ready, exited(0), gone).exit?.reason).toBe(ExitReason.EXITED_CLEAN);
    expect(run(prepared, spawned, exited(1), gone).exit?.message).toBe(
      "exited with code 1 before it was ready",
    );
  });

  test("M3: the first cause wins", () => {
    expect(run(prepared, spawned, ready, stop(ExitReason.IDLE_KILLED), exited(1), gone).exit?.reason).toBe(
      ExitReason.IDLE_KILLED,
    );
    expect(run(prepared, spawned, ready, exited(1), stop(), gone).exit?.reason).toBe(ExitReason.CRASHED);
    expect(
      run(prepared, spawned, ready, stop(ExitReason.KILLED), stop(ExitReason.REPLACED), gone).exit?.reason,
    ).toBe(ExitReason.KILLED);
  });

  test("M3: what a start that was stopped still says changes nothing", () => {
    const { state, tells, kinds } = run(stop(), prepared, spawned, ready, gone);
    expect(state.phase).toBe("exited");
    expect(tells).toEqual([
      [PENDING, STOPPING],
      [STOPPING, EXITED],
    ]);
    expect(kinds).not.toContain("spawn");
  });

  test("a refusal leaves no trace", () => {
    const { state, tells } = run({ kind: "refused", error: "no ports" }, stop(), gone);
    expect(state).toMatchObject({ phase: "refused", error: "no ports" });
    expect(tells).toEqual([]);
  });

  test("a second stop hurries", () => {
    const { all } = run(prepared, spawned, ready, stop(ExitReason.KILLED, 5000), stop(ExitReason.KILLED, 10));
    expect(all.at(-1)).toEqual({ kind: "hurry", graceMs: 10 });
  });

  test("an adopted one goes on where it was; one that is not there is buried", () => {
    const at = (phase: MachineState["phase"], told: InstanceState): MachineState => ({
      phase,
      activity: "running",
      wakes: 0,
      told,
      since: 0,
    });
    const effects = (state: MachineState, graceMs = 0, isFrozen = false) =>
      resume(state, graceMs, isFrozen, 1).effects;
    const watched: Effect[] = [{ kind: "settle" }, { kind: "watch", on: true }];
    expect(effects(at("ready", READY))).toEqual(watched);
    expect(effects(at("starting", STARTING))).toEqual([{ kind: "probe" }]);
    expect(effects(at("draining", DRAINING))).toContainEqual({ kind: "drain", ms: 0 });
    expect(effects(at("stopping", STOPPING), 70)).toContainEqual({ kind: "end", graceMs: 70 });
    expect(effects({ ...at("ready", READY), activity: "frozen" }, 0, true)).toEqual(watched);
    // On the way to frozen or back when the agent died: it runs, whatever the kernel was told before.
    for (const [activity, isFrozen] of [
      ["frozen", false],
      ["running", true],
      ["freezing", false],
      ["freezing", true],
    ] as const) {
      const { state, effects } = resume({ ...at("ready", READY), activity }, 0, isFrozen, 1);
      expect(state.activity).toBe("running");
      expect(effects).toContainEqual({ kind: "thaw" });
    }
    const dead = bury(at("ready", READY), "nobody watched");
    expect(dead.effects).toEqual([{ kind: "end", graceMs: 0 }]);
    expect(step(dead.state, gone, 5).effects[0]).toMatchObject({
      kind: "tell",
      from: READY,
      to: EXITED,
      exit: { reason: ExitReason.UNKNOWN, message: "nobody watched" },
    });
    const stopped = { ...at("stopping", STOPPING), cause: { reason: ExitReason.IDLE_KILLED } };
    expect(bury(stopped, "").state.cause?.reason).toBe(ExitReason.IDLE_KILLED);
  });

  test("M5: FROZEN is told when nothing runs, ACTIVE after the thaw; each thaw raises the wakes", () => {
    const { all, state } = run(prepared, spawned, ready, freeze, frozen, thaw, thaw);
    const modes = all.flatMap((one) =>
      one.kind === "tell" && one.from === one.to ? [[one.fromMode, one.toMode]] : [],
    );
    expect(modes).toEqual([
      [ACTIVE, FROZEN],
      [FROZEN, ACTIVE],
    ]);
    expect(all.filter((one) => one.kind === "thaw")).toHaveLength(1);
    expect(state).toMatchObject({ activity: "running", wakes: 2 });
    // First the deed, then its record.
    expect(all.findIndex((one) => one.kind === "thaw")).toBeLessThan(
      all.findLastIndex((one) => one.kind === "tell"),
    );
  });

  test("M5: a thaw wins over the freeze under way, whichever ends later", () => {
    const { state, all, kinds } = run(prepared, spawned, ready, freeze, thaw, frozen);
    expect(state).toMatchObject({ activity: "running", wakes: 1 });
    expect(kinds.slice(-3)).toEqual(["freeze", "thaw", "thaw"]);
    expect(all.some((one) => one.kind === "tell" && one.toMode === FROZEN)).toBe(false);
  });

  test("one that is frozen may be paged out; stopped it is told as gone from there", () => {
    const pagedOut: Input = { kind: "frozen", pagedOut: true };
    const { all, state } = run(prepared, spawned, ready, freeze, frozen, freeze, pagedOut, stop());
    const last = all.findLast((one) => one.kind === "tell")!;
    expect(last).toMatchObject({ from: READY, to: STOPPING, fromMode: PAGED_OUT });
    expect(state).toMatchObject({ phase: "stopping", activity: "running" });
  });

  test("a stop with a drain waits for its connections; one without hurries it; an exit ends it", () => {
    const drained: Input = { kind: "drained" };
    const whole = run(prepared, spawned, ready, stop(ExitReason.REPLACED, 70, 500), drained, gone);
    expect(whole.tells.slice(2)).toEqual([
      [READY, DRAINING],
      [DRAINING, STOPPING],
      [STOPPING, EXITED],
    ]);
    expect(whole.all).toContainEqual({ kind: "end", graceMs: 70 });
    const hurried = run(prepared, spawned, ready, stop(ExitReason.REPLACED, 70, 500), stop(), drained, gone);
    expect(hurried.exit?.reason).toBe(ExitReason.REPLACED);
    expect(hurried.kinds.filter((kind) => kind === "end")).toHaveLength(1);
    const left = run(prepared, spawned, ready, stop(ExitReason.REPLACED, 70, 500), exited(0), gone);
    expect(left.exit).toMatchObject({ reason: ExitReason.REPLACED, code: 0 });
  });

  test("M1 M2 M4: ten thousand random lives only move forward, end once, and are told EXITED once", () => {
    let seed = 42;
    const random = () => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return (seed >>> 8) / 2 ** 24;
    };
    const order = ["pending", "starting", "ready", "draining", "stopping", "exited"];
    const inputs: (() => Input)[] = [
      () => prepared,
      () => spawned,
      () => ready,
      () => exited(Math.floor(random() * 3)),
      () => stop(),
      () => stop(ExitReason.KILLED, 5000, 100),
      () => ({ kind: "drained" }),
      () => freeze,
      () => frozen,
      () => thaw,
      () => ({ kind: "not-ready", cause: { reason: ExitReason.READINESS_TIMEOUT } }),
      () => ({ kind: "unstartable", message: "x" }),
      () => gone,
    ];
    for (let life = 0; life < 10_000; life++) {
      let { state, effects } = begin(0);
      let ends = 0;
      let exits = 0;
      let told = PENDING;
      const seedHere = seed;
      for (let i = 0; i < 30; i++) {
        const input = inputs[Math.floor(random() * inputs.length)]!();
        // `gone` answers `end`; the shell never says it unasked.
        if (input.kind === "gone" && ends === 0) continue;
        const before = order.indexOf(state.phase);
        ({ state, effects } = step(state, input, i));
        if (order.indexOf(state.phase) < before) throw new Error(`went back (seed ${seedHere})`);
        for (const effect of effects) {
          if (effect.kind === "end") ends++;
          if (effect.kind !== "tell") continue;
          const changesMode = effect.from === effect.to && effect.fromMode !== effect.toMode;
          if (effect.from !== told || (effect.to <= told && !changesMode))
            throw new Error(`told out of order (seed ${seedHere})`);
          told = effect.to;
          if (effect.to === EXITED) exits++;
        }
      }
      if (ends > 1 || exits > 1 || (exits === 1 && ends !== 1))
        throw new Error(`ended twice (seed ${seedHere})`);
    }
  });
});
