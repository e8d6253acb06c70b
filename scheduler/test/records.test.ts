import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { UsageLimitSchema, UsageMeter, UsagePeriod } from "@warren/proto/common";
import type { ReachedLimit } from "../src/core/model.ts";
import { entryOf, loadedFrom } from "../src/records.ts";

test("limits that are reached are read as they were written, to the last unit", () => {
  const reached: ReachedLimit[] = [
    {
      tenant: "shop",
      limit: create(UsageLimitSchema, {
        meter: UsageMeter.BYTES_OUT,
        period: UsagePeriod.MONTH,
        max: 2n ** 63n + 1n,
      }),
      used: 2n ** 64n - 1n,
      until: Date.UTC(2026, 11),
    },
  ];
  const { key, value } = entryOf({ kind: "limits", tenant: "shop", reached });
  expect(loadedFrom({ entries: new Map([[key, value!]]), epoch: 1n, lastSeq: 1n }).limits).toEqual(reached);
  expect(entryOf({ kind: "limits", tenant: "shop", reached: [] })).toEqual({ key, value: null });
});
