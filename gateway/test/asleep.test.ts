/** Requests to frozen instances: the gateway wakes them by itself, scheduler up or down. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { waitUntil } from "@warren/common/time";
import { InstanceMode } from "@warren/proto/common";
import { EndpointUpdate, type TenantEndpoint } from "@warren/proto/scheduler";
import { type House, openHouse } from "./support/house.ts";
import { openSleeper, type Sleeper } from "./support/sleeper.ts";

const within = { deadlineMs: 5_000 };
let house: House;
let sleeper: Sleeper;

beforeEach(async () => {
  sleeper = await openSleeper();
  house = await openHouse({ holdDeadlineMs: 700 });
  const { scheduler } = house;
  scheduler.push({
    update: EndpointUpdate.COMPLETE,
    node: "n1",
    agentUrl: sleeper.agentUrl,
    version: scheduler.version(),
  });
});

afterEach(async () => {
  await house[Symbol.asyncDispose]();
  await sleeper[Symbol.asyncDispose]();
});

/** Told to the gateway, which has taken it. */
async function publish(mode: InstanceMode, id?: string): Promise<TenantEndpoint> {
  const endpoint = house.scheduler.publish("shop", sleeper.port, { mode, id });
  // Messages are taken in order: once the second is answered, so is the first.
  const after = house.scheduler.publish("other", sleeper.port, { mode: InstanceMode.QUIESCING });
  await waitUntil(() => house.scheduler.lastTouch(after.instance!.id)?.sealed, within);
  return endpoint;
}

async function asleep(): Promise<TenantEndpoint> {
  const endpoint = await publish(InstanceMode.FROZEN);
  sleeper.freeze();
  return endpoint;
}

describe("a frozen instance", () => {
  test("is thawed by the request, once for all that come together, and needs no Ensure", async () => {
    await asleep();
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => house.ask("shop").then((r) => r.text())),
    );
    expect(new Set(answers)).toEqual(new Set(["awake"]));
    expect(sleeper.thaws).toBe(1);
    expect(house.scheduler.ensures).toEqual([]);
    expect(await house.ask("shop").then((r) => r.text())).toBe("awake");
    expect(sleeper.thaws).toBe(1); // it is awake, and that is known
  });

  test("wakes for a stream and for a WebSocket", async () => {
    await asleep();
    expect(await house.ask("shop", "/slow").then((r) => r.text())).toBe("01234");
    await publish(InstanceMode.FROZEN);
    sleeper.freeze();
    const socket = new WebSocket(`ws://127.0.0.1:${house.gateway.port}/ws`, {
      headers: { Host: "shop.localhost" },
    } as never);
    const said = new Promise((resolve, reject) => {
      socket.onopen = () => socket.send("hi");
      socket.onmessage = ({ data }) => resolve(data);
      socket.onerror = reject;
    });
    expect(await said).toBe("hi");
    socket.close();
  });

  test("rule 7: wakes with the scheduler down, each request anew, since nobody tells when it sleeps again", async () => {
    await asleep();
    await house.scheduler.stop();
    await waitUntil(() => !house.gateway.stats().watching, within);
    expect(await house.ask("shop").then((r) => r.text())).toBe("awake");
    sleeper.freeze(); // unseen
    expect(await house.ask("shop").then((r) => r.text())).toBe("awake");
    expect(sleeper.thaws).toBeGreaterThanOrEqual(2);
  });

  test("rule 7: waits for its agent, bounded: answered when the agent is back, refused when it is not", async () => {
    await asleep();
    await sleeper.stopAgent();
    const late = await house.ask("shop");
    expect(late.status).toBe(503);
    expect(await late.text()).toContain("does not answer");
    const pending = house.ask("shop");
    await sleeper.startAgent();
    expect(await pending.then((r) => r.text())).toBe("awake");
  });

  test("rule 9: on a node that has as many awake as it may is refused in time, with the reason", async () => {
    sleeper.answer = "full";
    await asleep();
    const refused = await house.ask("shop");
    expect(refused.status).toBe(503);
    expect(await refused.text()).toContain("as many awake as it may");
    expect(house.gateway.stats().inFlight).toBe(0);
    sleeper.answer = "thawed";
    expect(await house.ask("shop").then((r) => r.text())).toBe("awake");
  });

  test("rule 3: one that is frozen under a request is thawed at once", async () => {
    const endpoint = await publish(InstanceMode.ACTIVE);
    const response = await house.ask("shop", "/slow"); // its answer has begun
    sleeper.freeze();
    await publish(InstanceMode.FROZEN, endpoint.instance!.id);
    expect(await response.text()).toBe("01234");
    expect(sleeper.thaws).toBe(1);
  });
});

test("with its agent down an awake instance keeps answering, though the watch is down as well", async () => {
  await publish(InstanceMode.ACTIVE);
  expect(await house.ask("shop").then((r) => r.text())).toBe("awake");
  await sleeper.stopAgent();
  await house.scheduler.stop();
  await waitUntil(() => !house.gateway.stats().watching, within);
  for (let i = 0; i < 5; i++) expect(await house.ask("shop").then((r) => r.text())).toBe("awake");
});

test("sealed while it is being frozen, it is open again once that is done", async () => {
  const endpoint = await publish(InstanceMode.ACTIVE);
  await publish(InstanceMode.QUIESCING, endpoint.instance!.id);
  await publish(InstanceMode.FROZEN, endpoint.instance!.id);
  sleeper.freeze();
  expect(await house.ask("shop").then((r) => r.text())).toBe("awake");
  expect(house.scheduler.ensures).toEqual([]);
  expect(sleeper.thaws).toBe(1);
});
