import { expect, test } from "bun:test";
import { UsageMeter, UsagePeriod } from "@warren/proto/common";
import { UserError } from "../src/exit.ts";
import { parseUsageLimit } from "../src/usage-limit.ts";

test("limits on use are read as they are written", () => {
  expect(parseUsageLimit("cpu-seconds=3600/day")).toMatchObject({
    meter: UsageMeter.CPU_SECONDS,
    period: UsagePeriod.DAY,
    max: 3600n,
  });
  expect(parseUsageLimit("bytes-out=1099511627776/month")).toMatchObject({ max: 1n << 40n });
});

test.each([
  "",
  "cpu=1/day",
  "cpu-seconds=0/day",
  "cpu-seconds=-1/day",
  "cpu-seconds=1.5/day",
  "requests=1/week",
  "requests=1",
])("%p is refused, with what can be said", (text) => {
  expect(() => parseUsageLimit(text)).toThrow(UserError);
  expect(() => parseUsageLimit(text)).toThrow(/memory-gib-seconds.*hour, day, month/);
});
