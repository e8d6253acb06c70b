/** The plans file's shape, and the plans that a well-formed one means. Pure. */
import { isKey, keyRule } from "@warren/common/ids";
import { z } from "zod";
import { kindOf, meterKeys } from "./catalog.ts";
import type { Plan, Plans, Price } from "./plan.ts";

/** Beyond these something is wrong, and a month's bill might not fit the contract's 64 bits. */
const mostMicros = 10n ** 15n;
const mostUnits = 10n ** 18n;

/** No fractions, so that nothing is a float on its way in; "1_000_000" for what YAML takes for text. */
const whole = (least: bigint, most: bigint) =>
  z
    .union([z.int(), z.string().regex(/^\d+(_\d+)*$/)], {
      error:
        "must be a whole number, such as 250000 or 1_000_000: money is in millionths of the currency's unit",
    })
    .transform((value) => BigInt(typeof value === "string" ? value.replaceAll("_", "") : value))
    .refine((value) => value >= least && value <= most, { error: `must be from ${least} to ${most}` });

const rate = {
  micros: whole(0n, mostMicros),
  per: whole(1n, mostUnits).default(1n),
};

const tier = z.strictObject({ upTo: whole(1n, mostUnits).optional(), ...rate });

const tiers = z
  .array(tier)
  .min(1)
  .superRefine((list, context) => {
    for (const [n, { upTo }] of list.entries()) {
      const say = (message: string) =>
        context.addIssue({ code: "custom", path: [n, "upTo"], message, input: upTo });
      const last = n === list.length - 1;
      const before = list[n - 1]?.upTo;
      if (last && upTo !== undefined) say("the last tier has no end: leave upTo out");
      else if (!last && upTo === undefined)
        say("only the last tier has no end: say up to how many units it goes");
      else if (upTo !== undefined && before !== undefined && upTo <= before)
        say(`must be more than the tier before it (${before})`);
    }
  });

const common = {
  meter: z.enum(meterKeys, { error: `must be one of ${meterKeys.join(", ")}` }),
  name: z.string().min(1).max(128).optional(),
  free: whole(0n, mostUnits).default(0n),
};

const price = z.discriminatedUnion(
  "model",
  [
    z.strictObject({ ...common, model: z.literal("unit"), ...rate }),
    z.strictObject({ ...common, model: z.literal("graduated"), tiers }),
    z.strictObject({ ...common, model: z.literal("volume"), tiers }),
  ],
  { error: "must be unit (with micros), or graduated or volume (with tiers)" },
);

const budget = z.strictObject({
  micros: whole(1n, mostMicros * 1_000n),
  alertPercents: z
    .array(z.int().min(1).max(10_000))
    .min(1)
    .max(20)
    .default([50, 80, 100])
    .transform((percents) => [...new Set(percents)].sort((a, b) => a - b)),
});

const plan = z.strictObject({
  prices: z.array(price).max(64).default([]),
  minimumMicros: whole(0n, mostMicros).default(0n),
  budget: budget.optional(),
});

const planName = z.string().min(1).max(128);

export const plansSchema = z
  .strictObject({
    currency: z
      .string()
      .regex(/^[A-Z]{3}$/, { error: "must be a currency's code as ISO 4217 has it, like EUR" }),
    plans: z.record(planName, plan),
    tenants: z.record(z.string(), planName).default({}),
    default: planName.optional(),
  })
  .superRefine((file, context) => {
    const known = (name: string, path: string[]) => {
      if (Object.hasOwn(file.plans, name)) return;
      const names = Object.keys(file.plans).join(", ") || "none";
      context.addIssue({
        code: "custom",
        path,
        message: `there is no plan ${name} here (there are: ${names})`,
        input: name,
      });
    };
    for (const [who, name] of Object.entries(file.tenants)) {
      known(name, ["tenants", who]);
      if (!isKey(who) && !isPattern(who)) {
        const message = `must be a tenant's key, or a pattern with up to three *, such as trial-*; a key ${keyRule}`;
        context.addIssue({ code: "custom", path: ["tenants", who], message, input: who });
      }
    }
    if (file.default !== undefined) known(file.default, ["default"]);
    for (const [name, { prices }] of Object.entries(file.plans)) {
      const seen = new Set<string>();
      for (const [n, entry] of prices.entries()) {
        const title = titleOf(entry);
        if (seen.has(title)) {
          const message = `another price of this plan is called ${title} as well: name them apart`;
          context.addIssue({
            code: "custom",
            path: ["plans", name, "prices", n, "name"],
            message,
            input: title,
          });
        }
        seen.add(title);
      }
    }
  });

type PlansFile = z.output<typeof plansSchema>;
type PriceEntry = PlansFile["plans"][string]["prices"][number];

const titleOf = ({ name, meter }: PriceEntry): string => name ?? kindOf(meter).title;

/** With up to three stars: more would take long to match. */
const isPattern = (text: string): boolean =>
  /^[a-z0-9*-]{1,63}$/.test(text) && /^[^*]*\*+[^*]*(\*+[^*]*){0,2}$/.test(text);

export function plansFrom(file: PlansFile): Plans {
  const plans = new Map<string, Plan>(
    Object.entries(file.plans).map(([name, { prices, minimumMicros, budget }]) => [
      name,
      { name, prices: prices.map(priceFrom), minimum: minimumMicros, budget },
    ]),
  );
  const assigned = Object.entries(file.tenants).map(([who, name]) => ({ who, plan: plans.get(name)! }));
  return {
    currency: file.currency,
    plans,
    exact: new Map(assigned.filter(({ who }) => !isPattern(who)).map(({ who, plan }) => [who, plan])),
    patterns: assigned
      .filter(({ who }) => isPattern(who))
      .map(({ who, plan }) => ({ matches: new RegExp(`^${who.replace(/\*+/g, ".*")}$`), plan })),
    fallback: file.default === undefined ? undefined : plans.get(file.default),
  };
}

function priceFrom(entry: PriceEntry): Price {
  const common = { name: titleOf(entry), kind: kindOf(entry.meter), free: entry.free };
  return entry.model === "unit"
    ? { ...common, model: "unit", rate: { micros: entry.micros, per: entry.per } }
    : { ...common, model: entry.model, tiers: entry.tiers };
}
