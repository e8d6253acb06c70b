// CPU seconds and starts per tenant from Warren's events: node consumer.js [url] [state file] [--once]   (bun does as well)
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

const [url = "nats://127.0.0.1:4222", path = "billing.json", once] = process.argv.slice(2);
const name = process.env.CONSUMER ?? "billing";
const state = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : { seen: {}, tenants: {} };

function count(id, type, tenant, data) {
  if (state.seen[id]) return; // a repeat
  state.seen[id] = Date.now();
  if (type !== "dev.warren.usage" && type !== "dev.warren.transition") return;
  state.tenants[tenant] ??= { starts: 0, cpuUs: {} };
  const { cpuUs } = state.tenants[tenant];
  const { id: instance } = data.instance;
  // Cumulative: the highest counts, in whatever order they come.
  cpuUs[instance] = Math.max(cpuUs[instance] ?? 0, Number(data.usage?.cpuUs ?? 0));
  if (data.from === "INSTANCE_STATE_STARTING" && data.to === "INSTANCE_STATE_READY")
    state.tenants[tenant].starts++;
}

function commit() {
  // The stream keeps no event for longer than --events-keep: older ids cannot come again.
  for (const id in state.seen) if (state.seen[id] < Date.now() - 8 * 86_400_000) delete state.seen[id];
  writeFileSync(`${path}.new`, JSON.stringify(state));
  renameSync(`${path}.new`, path);
}

const connection = await connect({ servers: url, maxReconnectAttempts: -1 });
const manager = await jetstreamManager(connection);
const config = { durable_name: name, ack_policy: AckPolicy.Explicit, ack_wait: 10e9 }; // ns
await manager.consumers.add("WARREN_EVENTS", config);
const consumer = await jetstream(connection).consumers.get("WARREN_EVENTS", name);
for (let messages = []; ; messages = []) {
  for await (const message of await consumer.fetch({ max_messages: 500, expires: 2_000 })) {
    const header = (name) => message.headers?.get(name);
    count(header("ce-id"), header("ce-type"), header("ce-subject"), message.json());
    messages.push(message);
  }
  if (messages.length > 0) commit();
  await Promise.all(messages.map((message) => message.ackAck())); // only now: what was not committed comes again
  const { num_pending, num_ack_pending } = await consumer.info();
  if (once && num_pending + num_ack_pending === 0) break;
}
for (const [tenant, { starts, cpuUs }] of Object.entries(state.tenants).sort()) {
  const seconds = Object.values(cpuUs).reduce((sum, us) => sum + us, 0) / 1e6;
  console.log(`${tenant} ${seconds.toFixed(6)} ${starts}`);
}
await connection.close();
