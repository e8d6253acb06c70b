/** The plans file: three formats, mistakes said where they are, changes taken up. */
import { describe, expect, test } from "bun:test";
import { renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "@warren/common/config";
import { LivePlans } from "../../src/billing/live-plans.ts";
import { planOf } from "../../src/billing/plan.ts";
import { amountOf } from "../../src/billing/price.ts";
import { parsePlans, readPlans } from "../../src/billing/read-plans.ts";
import { silent, temporaryDirectory } from "../harness.ts";

const example = join(import.meta.dir, "../../../examples/plans.yaml");

const yaml = `
currency: EUR
plans:
  pro:
    prices:
      - { meter: cpu-seconds, model: unit, micros: 40000, per: 3600, free: 1_000 }
      - meter: requests
        name: Calls
        model: graduated
        tiers: [{ upTo: 1000000, micros: 0 }, { micros: 200000, per: 1000000 }]
    minimumMicros: 5000000
    budget: { micros: 100000000, alertPercents: [100, 50, 50] }
  free: {}
tenants: { shop: pro, "trial-*": free, "*-test": free }
default: pro
`;
const toml = `
currency = "EUR"
default = "pro"
[plans.pro]
minimumMicros = 5_000_000
budget = { micros = 100_000_000, alertPercents = [50, 100] }
[[plans.pro.prices]]
meter = "cpu-seconds"
model = "unit"
micros = 40_000
per = 3600
free = 1_000
[[plans.pro.prices]]
meter = "requests"
name = "Calls"
model = "graduated"
tiers = [{ upTo = 1_000_000, micros = 0 }, { micros = 200_000, per = 1_000_000 }]
[plans.free]
[tenants]
shop = "pro"
"trial-*" = "free"
"*-test" = "free"
`;

const mistakes = (path: string, text: string): string => {
  try {
    parsePlans(path, text);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message;
  }
  throw new Error("no mistake was found");
};

describe("a plans file", () => {
  test("means the same in YAML, TOML and JSON", () => {
    const fromYaml = parsePlans("plans.yaml", yaml);
    expect(fromYaml.plans.get("pro")).toMatchObject({
      minimum: 5_000_000n,
      budget: { micros: 100_000_000n, alertPercents: [50, 100] },
    });
    expect(parsePlans("plans.toml", toml)).toEqual(fromYaml);
    expect(parsePlans("PLANS.JSON", JSON.stringify(Bun.YAML.parse(yaml)))).toEqual(fromYaml);
  });

  test("gives a tenant the plan of its key, else of the first pattern, else the default", () => {
    const plans = parsePlans("plans.yaml", yaml);
    const named = (tenant: string) => planOf(plans, tenant)?.name;
    expect(["shop", "trial-7", "my-test", "trial", "anyone"].map(named)).toEqual([
      "pro",
      "free",
      "free",
      "pro",
      "pro",
    ]);
    expect(planOf({ ...plans, fallback: undefined }, "anyone")).toBeUndefined();
  });

  test("with mistakes is refused, with the file, the place and what should be there", () => {
    const said = mistakes(
      "p.yaml",
      `
currency: euro
plans:
  pro:
    prices:
      - { meter: cpu, model: unit, micros: 1 }
      - { meter: requests, model: unit, micros: 0.5 }
      - { meter: requests, model: volume, tiers: [{ micros: 1 }, { upTo: 5, micros: 1 }] }
      - { meter: requests, model: tiered }
      - { meter: thaws, model: unit }
    minimum: 5
`,
    );
    for (const line of [
      "p.yaml: currency: must be a currency's code as ISO 4217 has it, like EUR",
      "p.yaml: plans.pro.prices[0].meter: must be one of cpu-seconds, ",
      "p.yaml: plans.pro.prices[1].micros: must be a whole number",
      "p.yaml: plans.pro.prices[2].tiers[0].upTo: only the last tier has no end",
      "p.yaml: plans.pro.prices[2].tiers[1].upTo: the last tier has no end",
      "p.yaml: plans.pro.prices[3].model: must be unit (with micros), or graduated or volume (with tiers)",
      "p.yaml: plans.pro.prices[4].micros: is needed",
      "p.yaml: plans.pro: unknown: minimum",
    ])
      expect(said).toContain(line);

    const references = mistakes(
      "p.json",
      JSON.stringify({
        currency: "EUR",
        plans: {
          a: {
            prices: [
              { meter: "thaws", model: "unit", micros: 1 },
              { meter: "starts", name: "Thaws", model: "unit", micros: 1 },
            ],
          },
        },
        tenants: { shop: "b", Shop: "a", "a*b*c*d*": "a" },
        default: "c",
      }),
    );
    for (const line of [
      "p.json: tenants.shop: there is no plan b here (there are: a)",
      "p.json: tenants.Shop: must be a tenant's key, or a pattern",
      "p.json: tenants.a*b*c*d*: must be a tenant's key, or a pattern",
      "p.json: default: there is no plan c here",
      "p.json: plans.a.prices[1].name: another price of this plan is called Thaws as well",
    ])
      expect(references).toContain(line);
  });

  test("that is no plans file at all is refused", () => {
    expect(mistakes("plans.ini", "")).toContain("plans are a file .yaml, .yml, .toml or .json");
    expect(mistakes("plans.yaml", "a: [1")).toContain("plans.yaml: YAML Parse error");
    expect(mistakes("plans.json", "[]")).toContain("plans.json: ");
    expect(() => readPlans("/nowhere/plans.yaml")).toThrow("/nowhere/plans.yaml: the plans cannot be read");
  });

  test("as the example has it is right", () => {
    const plans = readPlans(example);
    expect(plans.plans.size).toBeGreaterThan(1);
    expect(planOf(plans, "anyone")).toBeDefined();
    const used = 10n ** 15n;
    const models = [...plans.plans.values()].flatMap(({ prices }) => {
      for (const price of prices) expect(amountOf(price, used) > 0n).toBe(true);
      return prices.map(({ model }) => model);
    });
    expect(new Set(models)).toEqual(new Set(["unit", "graduated", "volume"]));
  });
});

describe("plans that live", () => {
  const named = (live: LivePlans) => planOf(live.current, "anyone")?.name;
  const one = (name: string) => `{"currency":"EUR","plans":{"${name}":{}},"default":"${name}"}`;

  test("follow their file: written anew, renamed over, swapped behind a link", () => {
    using directory = temporaryDirectory();
    const at = (name: string) => join(directory.path, name);
    writeFileSync(at("first.json"), one("a"));
    symlinkSync(at("first.json"), at("plans.json"));
    using live = LivePlans.open(at("plans.json"), { log: silent });
    let changes = 0;
    live.onChange(() => changes++);
    live.look();
    expect([named(live), changes]).toEqual(["a", 0]);
    writeFileSync(at("first.json"), one("bb"));
    live.look();
    expect([named(live), changes]).toEqual(["bb", 1]);
    writeFileSync(at("second.json"), one("cc"));
    symlinkSync(at("second.json"), at("new"));
    renameSync(at("new"), at("plans.json"));
    live.look();
    expect([named(live), changes]).toEqual(["cc", 2]);
  });

  test("stay as they were while the file is broken or gone", () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "plans.json");
    writeFileSync(path, one("a"));
    using live = LivePlans.open(path, { log: silent });
    writeFileSync(path, "{");
    live.look();
    expect([named(live), live.broken]).toEqual(["a", true]);
    rmSync(path);
    live.look();
    expect([named(live), live.broken]).toEqual(["a", true]);
    writeFileSync(path, one("b"));
    live.look();
    expect([named(live), live.broken]).toEqual(["b", false]);
  });

  test("must be right to begin with", () => {
    expect(() => LivePlans.open("/nowhere/plans.yaml", { log: silent })).toThrow(ConfigError);
  });
});
