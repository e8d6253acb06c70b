import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import {
  InstanceRefSchema,
  InstanceState,
  PlacementDecidedSchema,
  TransitionSchema,
  UsageReportSchema,
  UsageSchema,
} from "@warren/proto/common";
import { decodeEvent, EventFormatError, encodeEvent } from "../src/cloudevents.ts";
import { readAsCloudEvent } from "../src/testing/cloudevent.ts";

const instance = create(InstanceRefSchema, {
  id: "01J00000000000000000000001",
  tenant: "a",
  node: "n1",
  generation: 7n,
});
const transition = {
  case: "transition" as const,
  value: create(TransitionSchema, { instance, from: InstanceState.STARTING, to: InstanceState.READY }),
};
const event = { id: "n1:s:1", source: "n1", time: 1_700_000_000_123, tenant: "a", payload: transition };

describe("a CloudEvent in binary mode, there and back", () => {
  for (const format of ["json", "protobuf"] as const) {
    test(format, () => {
      const record = encodeEvent(event, { cell: "eu-1", format });
      expect(record.subject).toBe("warren.events.a.transition");
      expect(record.headers).toEqual({
        "content-type": `application/${format}`,
        "ce-datacontenttype": `application/${format}`,
        "ce-specversion": "1.0",
        "ce-id": "n1:s:1",
        "ce-source": "/warren/eu-1/n1",
        "ce-type": "dev.warren.transition",
        "ce-time": "2023-11-14T22:13:20.123Z",
        "ce-dataschema": "proto:warren.common.v1.Transition",
        "ce-subject": "a",
        "ce-instance": instance.id,
      });
      const seen = decodeEvent(record, 5n);
      expect([seen.id, seen.source, seen.tenant, seen.journalSeq]).toEqual(["n1:s:1", "n1", "a", 5n]);
      expect(seen.payload).toEqual(transition);

      const sdk = readAsCloudEvent(record);
      expect(sdk).toMatchObject({
        specversion: "1.0",
        id: "n1:s:1",
        source: "/warren/eu-1/n1",
        type: "dev.warren.transition",
        datacontenttype: `application/${format}`,
        dataschema: "proto:warren.common.v1.Transition",
        subject: "a",
        instance: instance.id,
      });
      if (format === "protobuf")
        expect(Uint8Array.from(sdk.data as Buffer)).toEqual(Uint8Array.from(record.data));
      else expect(sdk.data).toEqual(JSON.parse(new TextDecoder().decode(record.data)));
    });
  }
});

test("the reader that these tests trust refuses what is no CloudEvent", () => {
  const good = encodeEvent(event);
  for (const [name, value] of [
    ["ce-source", ""],
    ["ce-time", "yesterday"],
    ["ce-dataschema", "not a uri"],
    ["ce-Instance", "x"],
  ] as const) {
    const record = { ...good, headers: { ...good.headers, [name]: value } };
    expect(() => readAsCloudEvent(record), name).toThrow();
  }
});

test("what versions before this one wrote is still read", () => {
  const { subject, data } = encodeEvent(event);
  const headers = {
    "content-type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": "n1:s:1",
    "ce-source": "/warren/n1",
    "ce-type": "dev.warren.transition",
    "ce-time": "2023-11-14T22:13:20.123Z",
    "ce-subject": "a",
  };
  const seen = decodeEvent({ id: "n1:s:1", subject, headers, data }, 5n);
  expect([seen.source, seen.payload]).toEqual(["n1", transition]);
});

test("64-bit counters survive", () => {
  const usage = create(UsageSchema, { memoryByteSeconds: 2n ** 63n + 1n });
  const payload = { case: "usage" as const, value: create(UsageReportSchema, { instance, usage }) };
  for (const format of ["json", "protobuf"] as const) {
    const record = encodeEvent({ ...event, payload }, { cell: "c", format });
    expect(decodeEvent(record, 1n).payload.value).toEqual(payload.value);
  }
});

test("what is no event of ours is refused, by name", () => {
  const payload = { case: "placement" as const, value: create(PlacementDecidedSchema, { instance }) };
  const good = encodeEvent({ id: "x", source: "s", time: 0, tenant: "", payload });
  expect(good.subject).toBe("warren.events._cluster.placement");
  const broken = [
    { ...good, headers: { ...good.headers, "ce-type": "dev.warren.nonsense" } },
    { ...good, headers: { ...good.headers, "ce-time": "yesterday" } },
    { ...good, headers: { ...good.headers, "ce-datacontenttype": "application/xml" } },
    { ...good, headers: { ...good.headers, "ce-datacontenttype": "application/protobuf" } },
    { ...good, data: new TextEncoder().encode("{") },
    { ...good, headers: {} },
  ];
  for (const record of broken) expect(() => decodeEvent(record, 1n)).toThrow(EventFormatError);
});
