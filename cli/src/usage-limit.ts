/** Limits on a tenant's use as people write them: "cpu-seconds=3600/day". */
import { create } from "@bufbuild/protobuf";
import { type UsageLimit, UsageLimitSchema, UsageMeter, UsagePeriod } from "@warren/proto/common";
import { UserError } from "./exit.ts";
import { namesOf } from "./names.ts";

const meters = namesOf(UsageMeter);
const periods = namesOf(UsagePeriod);

/** What a limit can be set on, and for which time. */
export const meterNames = [...meters.keys()];
export const periodNames = [...periods.keys()];

/** @throws UserError naming what can be said */
export function parseUsageLimit(text: string): UsageLimit {
  const match = /^([a-z-]+)=(\d{1,19})\/([a-z]+)$/.exec(text);
  const meter = meters.get(match?.[1] ?? "");
  const period = periods.get(match?.[3] ?? "");
  const max = BigInt(match?.[2] ?? 0);
  if (meter === undefined || period === undefined || max === 0n) {
    throw new UserError(
      `--usage-limit ${text}: must be METER=NUMBER/PERIOD like cpu-seconds=3600/day; meters: ${meterNames.join(", ")}; periods: ${periodNames.join(", ")}`,
    );
  }
  return create(UsageLimitSchema, { meter, period, max });
}
