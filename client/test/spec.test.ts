import { describe, expect, test } from "bun:test";
import { fromJson, toJson } from "@bufbuild/protobuf";
import {
  cores,
  duration,
  parseSpec,
  SpecError,
  size,
  specFromJson,
  TenantSpecSchema,
  Warren,
} from "@warren/client";
import { toDuration } from "@warren/common/time";

/** The error's message, or "accepted". */
function refusal(run: () => unknown): string {
  try {
    run();
    return "accepted";
  } catch (error) {
    expect(error).toBeInstanceOf(SpecError);
    return (error as Error).message;
  }
}

const wrong = (json: unknown): string => refusal(() => specFromJson(json));

describe("a spec from JSON", () => {
  test("has durations, sizes and cores in people's units", () => {
    const spec = specFromJson({
      key: "x",
      idle: { stopAfter: "5m", freeze_after: "250ms", pageOutAfter: "1.5h" },
      limits: { memoryBytes: "256m", disk_bytes: "1GiB", cpuMillis: "0.5" },
    });
    expect(spec.idle?.stopAfter).toEqual(toDuration(300_000));
    expect(spec.idle?.freezeAfter).toEqual(toDuration(250));
    expect(spec.idle?.pageOutAfter).toEqual(toDuration(5_400_000));
    expect(spec.limits).toMatchObject({
      memoryBytes: 256n * 2n ** 20n,
      diskBytes: 2n ** 30n,
      cpuMillis: 500,
    });
    expect(
      specFromJson({ volumes: [{ name: "data", sizeBytes: "2g", backup: { every: "30m" } }] }).volumes,
    ).toMatchObject([{ sizeBytes: 2n ** 31n, backup: { every: toDuration(1_800_000) } }]);
    expect(wrong({ volumes: [{ size: "1g" }] })).toBe(
      "volumes[0].size: there is no such field; did you mean size_bytes?",
    );
    expect(specFromJson({ limits: { cpuMillis: "250m" } }).limits?.cpuMillis).toBe(250);
  });

  test("may be plain protojson, every field of it as it was", () => {
    const json = {
      key: "x",
      release: `sha256:${"0".repeat(64)}`,
      command: ["bun", "x.ts"],
      env: { A: "1" },
      nodeLabels: { zone: "a" },
      readiness: { kind: "READINESS_KIND_PORT", path: "/", timeout: "1.000000001s" },
      idle: { stopAfter: "300s", warm: [{ days: [1, 2], from: "08:00", until: "18:00" }] },
      limits: { memoryBytes: "9007199254740993", cpuMillis: 500, pids: 20 },
      instances: { min: 1, sharePort: true },
      isolation: "ISOLATION_NONE",
      usageLimits: [{ meter: "USAGE_METER_REQUESTS", period: "USAGE_PERIOD_DAY", max: "5" }],
    };
    const spec = specFromJson(json);
    expect(spec).toEqual(fromJson(TenantSpecSchema, json));
    expect(specFromJson(toJson(TenantSpecSchema, spec))).toEqual(spec);
  });

  test("names the path of what is wrong, and what was expected", () => {
    expect(wrong({ limits: { memoryBytes: "256q" } })).toBe(
      'limits.memory_bytes: "256q" is not a size like 256m or 1GiB',
    );
    expect(wrong({ limits: { memory_bytes: -1 } })).toStartWith("limits.memory_bytes: -1 is not a size");
    expect(wrong({ idle: { stopAfter: "5 minutes" } })).toBe(
      'idle.stop_after: "5 minutes" is not a duration like 250ms, 30s, 5m or 1h',
    );
    expect(wrong({ idle: { stopAfter: 300 } })).toStartWith("idle.stop_after: 300 is not a duration");
    expect(wrong({ limits: { cpuMillis: 0.5 } })).toBe(
      'limits.cpu_millis: 0.5 is not cores like "0.5" or "500m", nor a whole number of thousandths of a core',
    );
    expect(wrong({ limits: { pids: "many" } })).toBe('limits.pids: "many" is not a whole number from 0');
    expect(wrong({ env: { PORT: 3 } })).toBe("env.PORT: 3 is not text in quotes");
    expect(wrong({ idle: { warm: [{ from: "08:00" }, { days: ["x"] }] } })).toBe(
      'idle.warm[1].days[0]: "x" is not a whole number from 0',
    );
    expect(wrong({ isolation: "jail" })).toContain(
      'isolation: "jail" is not one of ISOLATION_UNSPECIFIED, ISOLATION_NONE',
    );
    expect(wrong({ limits: 3 })).toBe("limits: 3 is not an object");
    expect(wrong([])).toBe("[] is not an object");
    expect(wrong({ limits: { pids: 1, memoryBytes: 1, memory_bytes: 2 } })).toBe(
      "limits.memory_bytes: is given twice",
    );
    expect(wrong({ release: "a", directory: "/b" })).toContain("source");
    expect(wrong({ limits: { memoryBytes: "99999999999999999999g" } })).toStartWith("limits.memory_bytes: ");
  });

  test("refuses cores that may be thousandths", () => {
    expect(wrong({ limits: { cpuMillis: "500" } })).toBe(
      'limits.cpu_millis: "500" may be cores or thousandths of one: write "500m" or 500 for thousandths, 500000 for cores',
    );
  });

  test("refuses fields that there are not, at any depth, and names the one that was meant", () => {
    expect(wrong({ memory: 3 })).toBe("memory: there is no such field");
    expect(wrong({ limits: { memory: "3m" } })).toBe(
      "limits.memory: there is no such field; did you mean memory_bytes?",
    );
    expect(wrong({ redainess: {} })).toBe("redainess: there is no such field; did you mean readiness?");
    expect(wrong({ usageLimits: [{ mxa: 1 }] })).toContain("usage_limits[0].mxa: there is no such field");
  });

  test("may be text", () => {
    expect(parseSpec('\uFEFF{"idle":{"stopAfter":"5m"}}').idle?.stopAfter).toEqual(toDuration(300_000));
    expect(refusal(() => parseSpec("{"))).toStartWith("is not JSON: ");
  });
});

describe("a spec as an object", () => {
  // The check comes before any call: nothing listens there.
  const apply = async (spec: object): Promise<string> => {
    using warren = new Warren({ url: "https://127.0.0.1:1", credentials: { ca: "" } });
    const error = await warren.apply(spec).then(
      () => undefined,
      (e: unknown) => e as Error,
    );
    return error instanceof SpecError ? error.message : "accepted";
  };

  test("is refused with the path of a field that there is not", async () => {
    expect(await apply({ key: "x", memory: 3 })).toBe("memory: there is no such field");
    expect(await apply({ key: "x", limits: { memory: 3n } })).toBe(
      "limits.memory: there is no such field; did you mean memoryBytes?",
    );
    expect(await apply({ key: "x", idle: { warm: [{ form: "08:00" }] } })).toBe(
      "idle.warm[0].form: there is no such field; did you mean from?",
    );
    expect(await apply({ key: "x", release: "sha256:0" })).toBe(
      'release: there is no such field; write source: { case: "release", value: "sha256:0" }',
    );
    expect(await apply({ key: "x", source: { case: "relase", value: "" } })).toBe(
      'source.case: "relase" is not release or directory',
    );
    expect(await apply({ key: "x", source: "sha256:0" })).toContain(
      'source: "sha256:0" is not { case, value }',
    );
  });

  test("is told which helper makes a value of text", async () => {
    expect(await apply({ idle: { stopAfter: "5m" } })).toContain(
      'idle.stopAfter: "5m" is text: write duration("5m")',
    );
    expect(await apply({ limits: { memoryBytes: "256m" } })).toContain('write size("256m")');
    expect(await apply({ limits: { cpuMillis: "0.5" } })).toContain('write cores("0.5")');
  });

  test("is accepted as an object and as a message", async () => {
    const spec = {
      key: "x",
      source: { case: "release", value: "sha256:0" },
      env: { ANY: "name" },
      idle: { stopAfter: duration("5m"), warm: [{ days: [1], from: "08:00" }] },
      limits: { memoryBytes: size("1g"), cpuMillis: cores("0.5"), pids: undefined },
    };
    expect(await apply(spec)).toBe("accepted");
    expect(await apply(specFromJson({ key: "x", idle: { stopAfter: "5m" } }))).toBe("accepted");
  });
});

test("helpers refuse what is in no unit", () => {
  expect(() => duration("5 minutes")).toThrow('"5 minutes" is not a duration like 250ms, 30s, 5m or 1h');
  expect(() => size("256q")).toThrow('"256q" is not a size like 256m or 1GiB');
  expect(() => cores("x")).toThrow('"x" is not cores like');
});
