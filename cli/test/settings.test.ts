/** A spec as `inspect` shows it and `set` changes it; an environment as `env` lists it. */
import { describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, fromJson, toJson } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import { TenantSchema, TenantSpecSchema } from "@warren/proto/common";
import { ClusterDefaultsSchema, GetTenantResponseSchema } from "@warren/proto/scheduler";
import { inspectJson, inspectText } from "../src/commands/inspect.ts";
import { envLine, readEnvFile } from "../src/env.ts";
import { UserError } from "../src/exit.ts";
import { coresText, durationText, sizeText } from "../src/quantities.ts";
import { masked } from "../src/secrets.ts";
import { changedSettings, settingNames, shownSettings, unsetSetting } from "../src/settings.ts";
import { applyFlags } from "../src/spec.ts";

const spec = () =>
  fromJson(TenantSpecSchema, {
    key: "shop",
    release: `sha256:${"0".repeat(64)}`,
    command: ["bun", "my app.ts"],
    env: { A: "1", API_TOKEN: "hush" },
    limits: { memoryBytes: "209715200", cpuMillis: 500 },
    idle: { stopAfter: "600s", keepWarm: true, warm: [{ days: [1, 5], from: "08:00", until: "18:00" }] },
    readiness: { kind: "READINESS_KIND_MESSAGE" },
    usageLimits: [{ meter: "USAGE_METER_CPU_SECONDS", period: "USAGE_PERIOD_DAY", max: "60" }],
    nodeLabels: { zone: "b" },
  });
const defaults = create(ClusterDefaultsSchema, { stopAfter: toDuration(1_800_000), targetConcurrency: 50 });

const shown = (name: string) => {
  const one = shownSettings(spec(), defaults).find((setting) => setting.name === name)!;
  return [one.value, one.from];
};

describe("settings", () => {
  test("are told in the units of the flags, with who says so", () => {
    expect(shown("command")).toEqual(["bun 'my app.ts'", "spec"]);
    expect(shown("memory")).toEqual(["200MiB", "spec"]);
    expect(shown("cpu")).toEqual(["0.5", "spec"]);
    expect(shown("idle")).toEqual(["10m", "spec"]);
    expect(shown("keep-warm")).toEqual(["yes", "spec"]);
    expect(shown("warm")).toEqual(["Mon+Fri 08:00-18:00 UTC", "spec"]);
    expect(shown("ready-kind")).toEqual(["message", "spec"]);
    expect(shown("usage-limit")).toEqual(["cpu-seconds=60/day", "spec"]);
    expect(shown("node-labels")).toEqual(["zone=b", "spec"]);
    expect(shown("concurrency")).toEqual(["50", "cluster"]);
    expect(shown("max")).toEqual(["1", "default"]);
    const bare = shownSettings(create(TenantSpecSchema, { key: "a" }), defaults);
    expect(bare.find(({ name }) => name === "idle")).toEqual({ name: "idle", value: "30m", from: "cluster" });
    expect(bare.filter(({ from }) => from === "spec")).toEqual([]);
  });

  test("each field of the contract is shown, be it by name or as JSON", () => {
    const paths = new Set(shownSettings(spec(), defaults).map(({ name }) => name));
    expect(paths.size).toBe(settingNames.length);
  });

  test("each can be unset, and a part of which nothing is left goes with it", () => {
    const changed = spec();
    for (const name of settingNames) unsetSetting(changed, name);
    expect(toJson(TenantSpecSchema, changed)).toEqual({
      key: "shop",
      release: `sha256:${"0".repeat(64)}`,
      env: { A: "1", API_TOKEN: "hush" },
    });
    expect(() => unsetSetting(changed, "nope")).toThrow(UserError);
  });

  test("flags change what they name, off again too, and what changed is told", () => {
    const [before, after] = [spec(), spec()];
    unsetSetting(after, "--cpu");
    applyFlags(after, { memory: 2 ** 30, keepWarm: false, atMostOne: true, env: ["B=2"] });
    expect(changedSettings(before, after)).toEqual([
      { name: "memory", before: "200MiB", after: "1GiB" },
      { name: "cpu", before: "0.5", after: "no limit" },
      { name: "keep-warm", before: "yes", after: "no" },
      { name: "at-most-one", before: "no", after: "yes" },
    ]);
    applyFlags(after, { atMostOne: false });
    expect(changedSettings(before, after).map(({ name }) => name)).not.toContain("at-most-one");
    expect(after.env).toEqual({ A: "1", API_TOKEN: "hush", B: "2" });
  });

  test("quantities are exact, in the largest unit that divides them", () => {
    expect([0, 250, 1_500, 90_000, 1_800_000, 86_400_000].map(durationText)).toEqual([
      "0s",
      "250ms",
      "1500ms",
      "90s",
      "30m",
      "1d",
    ]);
    expect([1n, 2048n, 200n << 20n, 3n << 30n].map(sizeText)).toEqual(["1", "2KiB", "200MiB", "3GiB"]);
    expect(coresText(1_250)).toBe("1.25");
  });
});

describe("inspect", () => {
  const found = (more: object = {}) =>
    create(GetTenantResponseSchema, {
      tenant: create(TenantSchema, {
        spec: spec(),
        version: 7n,
        servingVersion: 7n,
        url: "http://u",
        ...more,
      }),
      defaults,
    });

  test("hides values that look secret where somebody may look on", () => {
    expect(inspectText(found(), true)).toMatch(/API_TOKEN +•+ +spec/);
    expect(inspectText(found(), false)).toMatch(/API_TOKEN +hush +spec/);
    expect(inspectText(found(), true)).toMatch(/memory +200MiB +spec/);
  });

  test("shows what serves where the newest version was rolled back", () => {
    const servingSpec = create(TenantSpecSchema, { key: "shop", env: { A: "0" } });
    const rolledBack = found({ servingVersion: 6n, servingSpec, rollout: { message: "it crashed" } });
    const text = inspectText(rolledBack, false);
    expect(text).toContain("6 serves; 7 was rolled back (it crashed)");
    expect(text).toMatch(/A +0 +spec/);
    expect(inspectJson(rolledBack)).toMatchObject({
      tenant: "shop",
      version: 7,
      servingVersion: 6,
      rolledBack: true,
      env: { A: "0" },
    });
  });
});

describe("an environment", () => {
  test("is listed as a dotenv file that reads back as it was", async () => {
    const env = {
      PLAIN: "a-b/c:d@e",
      EMPTY: "",
      SPACES: " two words ",
      HASH: "a # b",
      DOLLAR: "$HOME",
      BACKSLASH: "C:\\new",
      SINGLE: "it's",
      BOTH: `it's "so"`,
      LINES: "one\ntwo",
      JSON: '{"a": "b"}',
    };
    const at = await mkdtemp(join(tmpdir(), "warren-env-"));
    try {
      const lines = Object.entries(env).map(([name, value]) => envLine(name, value));
      await writeFile(join(at, ".env"), `${lines.join("\n")}\n`);
      expect(readEnvFile(join(at, ".env"))).toEqual(env);
    } finally {
      await rm(at, { recursive: true });
    }
  });

  test.each([
    ["API_KEY", "abc", "••••••"],
    ["GITHUB_TOKEN", "x", "••••••"],
    ["DB_PASSWORD", "x", "••••••"],
    ["STRIPE", "sk_live_0123456789", "••••••"],
    ["DATABASE_URL", "postgres://app:hunter2@db/app", "postgres://app:••••••@db/app"],
    ["DATABASE_URL", "postgres://db/app", "postgres://db/app"],
    ["KEYBOARD", "qwertz", "qwertz"],
    ["PORTAL", "https://example.com:8080/a@b", "https://example.com:8080/a@b"],
    ["EMPTY_SECRET", "", ""],
  ])("%s=%s is shown as %s", (name, value, shownValue) => {
    expect(masked(name, value)).toBe(shownValue);
  });
});
