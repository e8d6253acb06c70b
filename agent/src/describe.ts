/** An instance as the contracts tell it, from its record. Pure. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { exitReasonText } from "@warren/common/exit-reason";
import { toDuration, toTimestamp } from "@warren/common/time";
import {
  EndpointSchema,
  type Exit,
  ExitReason,
  ExitSchema,
  type Instance,
  InstanceMode,
  InstanceSchema,
  InstanceState,
  type StartPhasesSchema,
  type Transition,
  TransitionSchema,
  type UsageReport,
  UsageReportSchema,
} from "@warren/proto/common";
import { loopback } from "./address.ts";
import { type Effect, modeOf, type Outcome } from "./machine.ts";
import type { InstanceRecord, StartPhases } from "./records.ts";
import { type Counters, toUsage } from "./usage.ts";
import { writeHint } from "./write-hint.ts";

export function describeInstance(
  record: InstanceRecord,
  counters: Counters,
  exit: Exit | undefined,
): Instance {
  const { state, process, startedAt, startDurationMs } = record;
  // A process that ended by itself is told as STOPPING here, so that nobody routes to it.
  const shown = state.phase === "stopping" ? InstanceState.STOPPING : state.told;
  return create(InstanceSchema, {
    ref: record.ref,
    state: shown,
    mode: shown === InstanceState.READY ? modeOf(state) : InstanceMode.UNSPECIFIED,
    endpoint: endpointOf(record),
    pid: process?.pid ?? 0,
    startedAt: startedAt === undefined ? undefined : toTimestamp(startedAt),
    startDuration: startDurationMs === undefined ? undefined : toDuration(startDurationMs),
    startPhases: record.phases && describePhases(record.phases),
    usage: toUsage(counters),
    exit,
    wakes: BigInt(state.wakes),
    isolation: record.rung,
  });
}

/** @param now ms since 1970 */
export function describeTransition(
  record: InstanceRecord,
  counters: Counters,
  tell: Extract<Effect, { kind: "tell" }>,
  exit: Exit | undefined,
  reclaimedBytes: number,
  now: number,
): Transition {
  return create(TransitionSchema, {
    instance: record.ref,
    from: tell.from,
    to: tell.to,
    fromMode: tell.fromMode,
    toMode: tell.toMode,
    reclaimedBytes: tell.toMode === InstanceMode.PAGED_OUT ? BigInt(Math.round(reclaimedBytes)) : 0n,
    at: toTimestamp(now),
    after: toDuration(tell.afterMs),
    endpoint: endpointOf(record),
    pid: record.process?.pid ?? 0,
    exit: exit ?? (tell.cause && create(ExitSchema, tell.cause)),
    usage: toUsage(counters),
    wakes: BigInt(record.state.wakes),
    startPhases: becameReady(tell) && record.phases ? describePhases(record.phases) : undefined,
  });
}

function becameReady({ from, to }: Extract<Effect, { kind: "tell" }>): boolean {
  return to === InstanceState.READY && from !== InstanceState.READY;
}

/** An instance of which only its last transition is left. */
export function describeEnded({ instance: ref, exit, usage, pid }: Transition): Instance {
  return create(InstanceSchema, { ref, state: InstanceState.EXITED, exit, usage, pid });
}

export function describeUsage(record: InstanceRecord, counters: Counters): UsageReport {
  return create(UsageReportSchema, {
    instance: record.ref,
    at: toTimestamp(counters.at),
    usage: toUsage(counters),
  });
}

/** Of one that was told to go, nobody asks why: its output is not told. */
const asksForOutput: readonly ExitReason[] = [
  ExitReason.CRASHED,
  ExitReason.EXITED_CLEAN,
  ExitReason.READINESS_TIMEOUT,
  ExitReason.OOM_KILLED,
  ExitReason.UNHEALTHY,
  ExitReason.LIMIT,
  ExitReason.UNKNOWN,
];

/** @param directory where it ran from, or "" where that is not known */
export function describeExit(exit: Outcome, lastOutput: () => string[], directory = ""): Exit {
  const lines = asksForOutput.includes(exit.reason) ? lastOutput() : [];
  const hint = writeHint(lines, directory) ?? "";
  const messages = [exit.message, hint].filter((text) => text);
  return create(ExitSchema, {
    reason: exit.reason,
    code: exit.code,
    signal: exit.signal ?? "",
    message: messages.join("; "),
    hint,
    lastOutput: lines,
  });
}

/** "ended: crashed with code 3", for the end of its output. */
export function endRemark({ reason, code, signal, message }: Exit): string {
  const name = exitReasonText(reason);
  if (message) return `ended: ${name}: ${message.replaceAll("\n", " ")}`;
  return `ended: ${name}${signal ? ` by ${signal}` : code === undefined ? "" : ` with code ${code}`}`;
}

function endpointOf({ host, port }: InstanceRecord) {
  return port > 0 ? create(EndpointSchema, { host: host ?? loopback, port }) : undefined;
}

function describePhases(phases: StartPhases): MessageInitShape<typeof StartPhasesSchema> {
  return {
    fetch: toDuration(phases.fetchMs),
    queue: toDuration(phases.queueMs),
    spawn: toDuration(phases.spawnMs),
    listen: toDuration(phases.listenMs),
    answer: toDuration(phases.answerMs),
  };
}
