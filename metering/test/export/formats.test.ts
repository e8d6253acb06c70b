/** What other systems read: checked with their own libraries where there are some. */
import { describe, expect, test } from "bun:test";
import { fromJson } from "@bufbuild/protobuf";
import { toTimestamp } from "@warren/common/time";
import { TenantUsageSchema } from "@warren/proto/metering";
import { CloudEvent, ValidationError } from "cloudevents";
import { chunksOf } from "../../src/export/chunks.ts";
import { csv } from "../../src/export/csv.ts";
import { jsonLines } from "../../src/export/json-lines.ts";
import { openMeter } from "../../src/export/openmeter.ts";
import type { ExportRow } from "../../src/export/row.ts";
import { useOf } from "../billing/plans.ts";
import { hour, ten } from "../events.ts";

const row: ExportRow = {
  tenant: "shop",
  start: ten,
  end: ten + hour,
  use: useOf({
    cpuUs: 12_345_678n,
    memoryByteSeconds: 3n * 2n ** 70n,
    wallMs: 3_600_000n,
    frozenMs: 600_250n,
    requests: 2n ** 63n,
    bytesOut: 7n,
    starts: 1n,
    thaws: 2n,
    volumeByteSeconds: 9n * 2n ** 30n * 1_800n,
  }),
  instances: 3n,
};

test("CSV has a line of names, CRLF, and every digit", () => {
  expect(csv.head).toBe(
    "tenant,start,end,cpu_us,memory_byte_seconds,wall_ms,active_ms,frozen_ms,requests,bytes_out,starts,thaws,instances,volume_byte_seconds\r\n",
  );
  expect(csv.row(row)).toBe(
    "shop,2026-06-01T10:00:00.000Z,2026-06-01T11:00:00.000Z,12345678,3541774862152233910272,3600000,2999750,600250,9223372036854775808,7,1,2,3,17394617548800\r\n",
  );
  expect(csv.row({ ...row, start: undefined, end: undefined })).toStartWith("shop,,,12345678,");
});

test("a line of JSON is the contract's message", () => {
  const use = { ...row.use, memoryByteSeconds: 5n };
  const message = fromJson(TenantUsageSchema, JSON.parse(jsonLines.row({ ...row, use })));
  expect(message).toMatchObject({
    ...use,
    tenant: "shop",
    start: toTimestamp(ten),
    end: toTimestamp(ten + hour),
    activeMs: 2_999_750n,
    instances: 3n,
  });
});

describe("an event for OpenMeter", () => {
  const format = openMeter({ cell: "prod", cut: "hour" });
  const read = (text: string) => new CloudEvent(JSON.parse(text));

  test("is a CloudEvent by the reference library, with exact quantities", () => {
    const event = read(format.row(row));
    expect(event.validate()).toBe(true);
    expect(event).toMatchObject({
      id: "shop/hour/2026-06-01T10:00:00.000Z",
      source: "warren/prod",
      type: "warren.usage",
      subject: "shop",
      time: "2026-06-01T10:00:00.000Z",
      data: {
        window: "hour",
        end: "2026-06-01T11:00:00.000Z",
        cpu_seconds: "12.345678",
        memory_gib_seconds: "3298534883328",
        active_seconds: "2999.75",
        frozen_seconds: "600.25",
        requests: "9223372036854775808",
        bytes_out: "7",
        starts: "1",
        thaws: "2",
        volume_gib_hours: "4.5",
      },
    });
    // The library does refuse what is none.
    expect(() => read(format.row(row).replace('"warren.usage"', '""'))).toThrow(ValidationError);
  });

  test("has the same id whatever it says, and another one for another row", () => {
    const id = (of: ExportRow, cut: "hour" | "day" = "hour") =>
      read(openMeter({ cell: "prod", cut }).row(of)).id;
    expect(id({ ...row, use: useOf({ cpuUs: 1n }) })).toBe(id(row));
    const others = [id({ ...row, tenant: "blog" }), id({ ...row, start: ten + hour }), id(row, "day")];
    expect(new Set([id(row), ...others]).size).toBe(4);
  });
});

test("chunks are bounded, and together the text", async () => {
  const lines = Array.from({ length: 100 }, (_, n) => `${"ä€".repeat(n)}\n`);
  const sizes: number[] = [];
  const parts: Uint8Array[] = [];
  for await (const part of chunksOf(iterate(lines), 64)) {
    sizes.push(part.length);
    parts.push(part);
  }
  expect(Buffer.concat(parts).toString()).toBe(lines.join(""));
  expect(sizes.slice(0, -1).every((size) => size === 64)).toBe(true);
  expect(sizes.at(-1)).toBeLessThanOrEqual(64);
});

async function* iterate(lines: readonly string[]) {
  yield* lines;
}
