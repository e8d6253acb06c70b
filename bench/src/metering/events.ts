/** Events as agents' reports become them: of each instance a start, its counters every five seconds, and an end. */
import { create } from "@bufbuild/protobuf";
import { encodeEvent } from "@warren/common/cloudevents";
import { ulid } from "@warren/common/ids";
import { toDuration, toTimestamp } from "@warren/common/time";
import {
  EndpointSchema,
  type InstanceRef,
  InstanceRefSchema,
  InstanceState,
  TransitionSchema,
  UsageReportSchema,
  UsageSchema,
} from "@warren/proto/common";
import type { JournalRecord } from "@warren/store";

export interface Load {
  /** In all, about. */
  readonly events: number;
  readonly tenants: number;
  readonly nodes: number;
  /** Counters told of each instance between its start and its end. */
  readonly reports: number;
}

const reportMs = 5_000;
const style = { cell: "bench", format: "json" } as const;

/** Batches as the scheduler appends them: what one node has told at once. */
export function* batches(load: Load, size = 200): Generator<JournalRecord[]> {
  const { STARTING, READY, EXITED } = InstanceState;
  const run = ulid();
  const perLife = load.reports + 3;
  const lives = Math.ceil(load.events / perLife);
  const begin = Date.now() - lives * 10;
  const seqs = new Map<string, number>();
  let batch: JournalRecord[] = [];
  // Many live at once, and their reports come in turns.
  const atOnce = 1_000;
  for (let first = 0; first < lives; first += atOnce) {
    const count = Math.min(atOnce, lives - first);
    const refs = Array.from({ length: count }, (_, i) =>
      create(InstanceRefSchema, {
        id: ulid(),
        tenant: `t${(first + i) % load.tenants}`,
        generation: BigInt(first + i + 1),
        node: `n${(first + i) % load.nodes}`,
      }),
    );
    for (let step = 0; step < perLife; step++) {
      const at = begin + first * 10 + step * reportMs;
      for (const ref of refs) {
        const usage = create(UsageSchema, {
          cpuUs: BigInt(step * 20_000),
          memoryByteSeconds: BigInt(step) * 150_000_000n,
          wallMs: BigInt(step * reportMs),
          memoryBytes: 30n << 20n,
          pids: 1,
        });
        const last = step === perLife - 1;
        const payload =
          step < 2 || last
            ? ({
                case: "transition",
                value: create(TransitionSchema, {
                  instance: ref,
                  from: last ? READY : step === 0 ? InstanceState.PENDING : STARTING,
                  to: last ? EXITED : step === 0 ? STARTING : READY,
                  at: toTimestamp(at),
                  after: toDuration(10),
                  endpoint: create(EndpointSchema, { host: "127.0.0.1", port: 20_000 }),
                  usage,
                }),
              } as const)
            : ({
                case: "usage",
                value: create(UsageReportSchema, { instance: ref, at: toTimestamp(at), usage }),
              } as const);
        batch.push(record(ref, at, run, seqs, payload));
        if (batch.length < size) continue;
        yield batch;
        batch = [];
      }
    }
  }
  if (batch.length > 0) yield batch;
}

function record(
  { node, tenant }: InstanceRef,
  time: number,
  run: string,
  seqs: Map<string, number>,
  payload: Parameters<typeof encodeEvent>[0]["payload"],
): JournalRecord {
  const seq = (seqs.get(node) ?? 0) + 1;
  seqs.set(node, seq);
  return encodeEvent({ id: `${node}:${run}:${seq}`, source: node, time, tenant, payload }, style);
}
