/** The steps of the demo, each verified as it goes. */
import { create } from "@bufbuild/protobuf";
import { invoicesText } from "@warren/cli/invoice-text";
import { readSpec } from "@warren/cli/spec";
import { pause, toDuration, waitUntil } from "@warren/common/time";
import { ExitReason, IdlePolicySchema, InstanceState, type TenantSpec } from "@warren/proto/common";
import { example, type TestCell } from "../cell.ts";
import { startTraffic } from "../traffic.ts";
import { median, ms, type Told } from "./told.ts";

type Spec = Partial<Omit<TenantSpec, "$typeName" | "$unknown">>;

export async function steps(cell: TestCell, told: Told): Promise<void> {
  const exits = watchExits(cell);
  try {
    await deploys(cell, told);
    await coldAndWarm(cell, told);
    await streams(cell, told);
    await placement(cell, told);
    await idleKill(cell, told, exits);
    await eviction(cell, told, exits);
    await crash(cell, told, exits);
    await agentKilled(cell, told);
    await schedulerKilled(cell, told);
    await usage(cell, told);
  } finally {
    await exits.stop();
  }
}

/** Why instances ended, by tenant, as the events tell it. */
function watchExits(cell: TestCell) {
  const seen: { tenant: string; reason: ExitReason }[] = [];
  const stop = new AbortController();
  const run = (async () => {
    // A killed scheduler ends the stream; its successor continues it where it was.
    for (let after = 0n; !stop.signal.aborted; await pause(100, stop.signal)) {
      try {
        for await (const event of cell.warren.events({ after, signal: stop.signal })) {
          after = event.journalSeq;
          const { payload } = event;
          if (payload.case === "transition" && payload.value.to === InstanceState.EXITED) {
            seen.push({ tenant: event.tenant, reason: payload.value.exit?.reason ?? ExitReason.UNKNOWN });
          }
        }
      } catch {
        // the scheduler is away: the loop comes back to it
      }
    }
  })();
  return {
    has: (tenant: string, reason: ExitReason) =>
      waitUntil(() => seen.some((exit) => exit.tenant === tenant && exit.reason === reason), {
        deadlineMs: 15_000,
        what: `the event that ${tenant} was ${ExitReason[reason]}`,
      }),
    async stop() {
      stop.abort();
      await run;
    },
  };
}

async function deploy(cell: TestCell, name: string, from: string, change: Spec = {}): Promise<void> {
  const directory = example(from);
  const release = await cell.warren.upload(name, directory);
  const spec = readSpec(directory, { name });
  await cell.warren.apply({ ...spec, ...change, source: { case: "release", value: release.digest } });
}

async function timed(
  cell: TestCell,
  tenant: string,
  path = "/",
): Promise<{ took: number; response: Response; text: string }> {
  const begun = performance.now();
  const response = await cell.get(tenant, path);
  const text = await response.text();
  return { took: performance.now() - begun, response, text };
}

async function deploys(cell: TestCell, told: Told): Promise<void> {
  told.title("Deploying four apps");
  for (const name of ["hello", "api", "live", "crashy"]) {
    told.does(`deploy examples/${name}`);
    const begun = performance.now();
    await deploy(cell, name, name);
    told.saw(`${cell.url(name)} after ${ms(performance.now() - begun)}; nothing runs yet`);
  }
  const { instances } = await cell.warren.scheduler.listInstances({});
  told.verify(instances.length === 0, "a deployed tenant costs no process until somebody asks for it");
}

async function coldAndWarm(cell: TestCell, told: Told): Promise<void> {
  told.title("Cold to warm");
  for (const [tenant, path] of [
    ["hello", "/"],
    ["api", "/notes"],
  ] as const) {
    told.does(`GET ${cell.url(tenant, path)}, cold`);
    const cold = await timed(cell, tenant, path);
    told.verify(
      cold.response.status === 200,
      `${tenant} woke and answered ${cold.response.status} in ${ms(cold.took)}`,
    );
    const warm: number[] = [];
    for (let i = 0; i < 30; i++) warm.push((await timed(cell, tenant, path)).took);
    told.verify(median(warm) < cold.took, `warm: ${ms(median(warm))} (median of 30)`);
  }
  const json = { method: "POST", headers: { "content-type": "application/json" } };
  const bad = await cell.get("api", "/notes", { ...json, body: "{}" });
  const good = await cell.get("api", "/notes", {
    ...json,
    body: JSON.stringify({ title: "try Warren", text: "and tell" }),
  });
  await Promise.all([bad.text(), good.text()]);
  told.verify(
    bad.status === 422 && good.status === 201,
    `api: an invalid body answers ${bad.status}, a valid one ${good.status}`,
  );
}

async function streams(cell: TestCell, told: Told): Promise<void> {
  told.title("Streams");
  told.does("follow /events and talk to /ws of live, which is cold");
  const aborter = new AbortController();
  const response = await cell.get("live", "/events", { signal: aborter.signal });
  const reader = response.body!.getReader();
  let text = "";
  while ((text.match(/^data:/gm)?.length ?? 0) < 3) {
    const { value, done } = await reader.read();
    if (done) break;
    text += new TextDecoder().decode(value);
  }
  told.verify(
    response.headers.get("content-type")?.startsWith("text/event-stream") && /^data:/m.test(text),
    "three server-sent events came one by one",
  );
  const socket = new WebSocket(cell.url("live", "/ws").replace("http", "ws"));
  const echoed = await new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("the WebSocket did not echo within 10 s")), 10_000);
    socket.onopen = () => socket.send("hello from the demo");
    socket.onmessage = (message) => {
      if (!String(message.data).includes("hello from the demo")) return; // a greeting
      clearTimeout(timer);
      resolve(String(message.data));
    };
    socket.onerror = () => reject(new Error("the WebSocket failed"));
  });
  told.verify(echoed.includes("hello from the demo"), `the WebSocket echoed: ${echoed}`);
  socket.close();
  aborter.abort();
}

async function placement(cell: TestCell, told: Told): Promise<void> {
  told.title("Placement");
  told.does("ensure hello, api and live");
  for (const tenant of ["hello", "api", "live"]) await cell.warren.scheduler.ensure({ tenant });
  const ready = await cell.ready();
  for (const tenant of ["hello", "api", "live"]) {
    const { text } = await cell.warren.scheduler.explain({ tenant });
    told.note(`${tenant}: ${text}`);
  }
  const nodes = new Set(ready.map(({ ref }) => ref!.node));
  told.verify(nodes.size === 3, `three tenants stand on ${nodes.size} nodes: each went to the least loaded`);
}

async function idleKill(cell: TestCell, told: Told, exits: ReturnType<typeof watchExits>): Promise<void> {
  told.title("Idle");
  told.does("deploy hello again as brief, which is put away after one second without a request");
  await deploy(cell, "brief", "hello", { idle: create(IdlePolicySchema, { stopAfter: toDuration(1_000) }) });
  const cold = await timed(cell, "brief");
  told.verify(cold.response.status === 200, `brief woke in ${ms(cold.took)}`);
  await exits.has("brief", ExitReason.IDLE_KILLED);
  told.verify((await cell.ready("brief")).length === 0, "brief was idle-killed, and said so in an event");
  const again = await timed(cell, "brief");
  told.verify(again.response.status === 200, `the next request woke it again in ${ms(again.took)}`);
}

async function eviction(cell: TestCell, told: Told, exits: ReturnType<typeof watchExits>): Promise<void> {
  told.title("The cap: never more than four live instances");
  const crowd = ["crowd-1", "crowd-2", "crowd-3", "crowd-4", "crowd-5", "crowd-6"];
  for (const tenant of crowd) await deploy(cell, tenant, "hello");
  told.does(`six tenants are asked for at once: ${crowd.join(", ")}`);
  const sampling = new AbortController();
  let most = 0;
  const samples = (async () => {
    for (; !sampling.signal.aborted; await pause(5, sampling.signal)) {
      most = Math.max(most, (await cell.warren.scheduler.listInstances({})).instances.length);
    }
  })();
  const answers = await Promise.all(crowd.map((tenant) => timed(cell, tenant)));
  sampling.abort();
  await samples;
  told.verify(
    answers.every(({ response }) => response.status === 200),
    `all six answered, within ${ms(Math.max(...answers.map(({ took }) => took)))}`,
  );
  told.verify(most <= 4, `at no sample were more than four live (most: ${most})`);
  await exits.has("hello", ExitReason.LRU_EVICTED);
  told.saw("hello, the least recently used, was evicted among others");
}

async function crash(cell: TestCell, told: Told, exits: ReturnType<typeof watchExits>): Promise<void> {
  told.title("A crash");
  told.does("GET /crash of crashy, which exits with code 1");
  await timed(cell, "crashy");
  const { response } = await timed(cell, "crashy", "/crash");
  told.verify(
    response.status === 502,
    `the gateway answered ${response.status}: the tenant ended before it answered`,
  );
  await exits.has("crashy", ExitReason.CRASHED);
  const lines: string[] = [];
  for await (const line of cell.warren.logs("crashy", { tail: 3 })) lines.push(line.text);
  told.note(`its last words: ${lines.at(-1) ?? ""}`);
  const again = await timed(cell, "crashy");
  told.verify(
    again.response.status === 200,
    `the next request found a new instance after ${ms(again.took)}; nobody else noticed`,
  );
}

async function agentKilled(cell: TestCell, told: Told): Promise<void> {
  told.title("kill -9 of an agent");
  await timed(cell, "hello");
  const before = (await cell.ready("hello"))[0]!;
  const child = cell.cell.child(`agent-${before.ref!.node}`);
  await cell.remember();
  told.does(`kill -9 ${child.pid}, the agent of hello's node ${before.ref!.node}, under traffic`);
  const traffic = startTraffic(cell.url("hello"));
  const killed = child.pid!;
  process.kill(killed, "SIGKILL");
  await waitUntil(() => child.pid !== killed, { deadlineMs: 20_000, what: "the agent to be started again" });
  await waitUntil(async () => (await cell.ready("hello")).some(({ ref }) => ref!.id === before.ref!.id), {
    deadlineMs: 20_000,
  });
  await pause(500);
  await traffic.stop();
  told.verify(
    traffic.failures.length === 0,
    `${traffic.ok} requests, none failed${traffic.failures[0] ? `: ${traffic.failures[0]}` : ""}`,
  );
  told.saw(`the new agent adopted ${before.ref!.id}, pid ${before.pid}`);
}

async function schedulerKilled(cell: TestCell, told: Told): Promise<void> {
  told.title("kill -9 of the scheduler");
  await timed(cell, "hello");
  const ids = async () => (await cell.ready()).map(({ ref }) => ref!.id).sort();
  const before = await ids();
  const child = cell.cell.child("scheduler");
  told.does(`kill -9 ${child.pid}, under traffic`);
  const traffic = startTraffic(cell.url("hello"));
  const killed = child.pid!;
  process.kill(killed, "SIGKILL");
  await waitUntil(() => child.pid !== killed, {
    deadlineMs: 40_000,
    what: "the scheduler to be started again",
  });
  await waitUntil(async () => (await ids().catch(() => [])).join() === before.join(), {
    deadlineMs: 20_000,
    what: "all instances to be known again",
  });
  await traffic.stop();
  told.verify(
    traffic.failures.length === 0,
    `${traffic.ok} requests, none failed${traffic.failures[0] ? `: ${traffic.failures[0]}` : ""}`,
  );
  told.saw(`its successor knows all ${before.length} instances again, by the same ids`);
}

async function usage(cell: TestCell, told: Told): Promise<void> {
  told.title("Usage, from the ledger");
  const rows = await waitUntil(
    async () => {
      const { rows } = await cell.warren.metering.getUsage({});
      const hello = rows.find(({ tenant }) => tenant === "hello");
      return hello && hello.cpuUs > 0n && hello.wallMs > 0n && hello.memoryByteSeconds > 0n
        ? rows
        : undefined;
    },
    { deadlineMs: 20_000, what: "usage of hello in the ledger" },
  );
  for (const row of rows) {
    told.note(
      `${row.tenant.padEnd(8)} starts ${`${row.starts}`.padStart(2)}  alive ${(Number(row.wallMs) / 1000).toFixed(1).padStart(6)} s  cpu ${(Number(row.cpuUs) / 1e6).toFixed(3)} s  memory ${(Number(row.memoryByteSeconds) / 2 ** 20).toFixed(0).padStart(5)} MiB·s  requests ${row.requests}`,
    );
  }
  const idle = rows.find(({ tenant }) => tenant === "brief");
  told.verify(
    idle && idle.starts >= 2n,
    `brief was started ${idle?.starts} times, hello has used ${Number(rows.find(({ tenant }) => tenant === "hello")!.cpuUs) / 1000} ms of CPU`,
  );
  told.title("What it would cost (examples/plans.yaml)");
  const { invoices } = await cell.warren.metering.previewInvoices({});
  const api = invoices.find(({ tenant }) => tenant === "api");
  for (const line of invoicesText(invoices, undefined).trimEnd().split("\n")) told.note(line);
  told.verify(
    api?.plan === "business" && api.totalMicros === api.subtotalMicros + api.minimumMicros,
    `api, on the plan ${api?.plan}, is to pay its minimum: ${Number(api?.totalMicros ?? 0n) / 1e6} ${api?.currency}`,
  );
}
