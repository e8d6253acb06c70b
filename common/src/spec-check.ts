/**
 * What is wrong with a spec beyond its fields' own rules: parts that are valid but contradict each other, so that one of them
 * could have no effect, and values that cannot be meant. Refused rather than ignored, by the scheduler and by `warren
 * deploy` before it uploads. Pure.
 */
import { type IdlePolicy, ReadinessKind, type TenantSpec } from "@warren/proto/common";

export interface SpecProblem {
  /** Path of the field: "idle.freeze_after". */
  readonly field: string;
  /** What is wrong, and what to do. */
  readonly message: string;
}

/** Whether requests can reach it, and so wake it. */
export function servesHttp(spec: TenantSpec | undefined): boolean {
  return spec?.readiness?.kind !== ReadinessKind.NONE;
}

/** Whether an instance of it runs on whether it is used or not. */
export function isKeptAwake(spec: TenantSpec | undefined): boolean {
  return !servesHttp(spec) || spec?.idle?.keepWarm === true;
}

interface Rule {
  readonly field: string;
  readonly isBroken: (spec: TenantSpec) => boolean;
  readonly message: string | ((spec: TenantSpec) => string);
}

/** Bun itself starts in this much. A limit below is a typing error: "1k", or a unit that was forgotten. */
const leastMemory = 4n * 1024n * 1024n;

const reservedIn = ({ env }: TenantSpec) => Object.keys(env).find((name) => name.startsWith("WARREN_"));

const memoryOf = ({ limits }: TenantSpec): bigint => limits?.memoryBytes ?? 0n;

/** What puts an unused instance away. */
const putsAway: readonly (readonly [name: string, isSet: (idle: IdlePolicy) => boolean])[] = [
  ["stop_after", (idle) => idle.stopAfter !== undefined],
  ["freeze_after", (idle) => idle.freezeAfter !== undefined],
  ["page_out_after", (idle) => idle.pageOutAfter !== undefined],
  ["adaptive", (idle) => idle.adaptive],
];

const rules: readonly Rule[] = [
  ...putsAway.map(
    ([name, isSet]): Rule => ({
      field: `idle.${name}`,
      isBroken: (spec) => !servesHttp(spec) && spec.idle !== undefined && isSet(spec.idle),
      message:
        "a tenant with readiness none serves no HTTP, so that no request could wake it, and is never put away: leave this out, or give it another readiness",
    }),
  ),
  ...putsAway.map(
    ([name, isSet]): Rule => ({
      field: `idle.${name}`,
      isBroken: ({ idle }) => idle?.keepWarm === true && isSet(idle),
      message: "idle.keep_warm says that it is never put away: leave out one of the two",
    }),
  ),
  ...putsAway.slice(1, 3).map(
    ([name, isSet]): Rule => ({
      field: `idle.${name}`,
      isBroken: ({ idle }) => idle?.neverFreeze === true && isSet(idle),
      message: "idle.never_freeze says that it is never frozen: leave out one of the two",
    }),
  ),
  {
    field: "liveness.path",
    isBroken: (spec) => !servesHttp(spec) && (spec.liveness?.path ?? "") !== "",
    message:
      "a tenant with readiness none serves no HTTP, so that it would not answer the probe: watch it by liveness.heartbeat, or give it another readiness",
  },
  {
    field: "instances.target_concurrency",
    isBroken: (spec) => !servesHttp(spec) && (spec.instances?.targetConcurrency ?? 0) > 0,
    message: "a tenant with readiness none gets no requests to scale by: say with instances.min how many run",
  },
  {
    field: "env",
    isBroken: (spec) => reservedIn(spec) !== undefined,
    message: (spec) =>
      `${reservedIn(spec)}: names that begin with WARREN_ are reserved, since the agent sets them: give it another name`,
  },
  {
    field: "limits.memory_bytes",
    isBroken: (spec) => memoryOf(spec) > 0n && memoryOf(spec) < leastMemory,
    message: (spec) =>
      `${memoryOf(spec)} bytes is less than Bun itself needs to start: give at least 4 MiB (4m), or 0 for no limit`,
  },
];

export function specProblem(spec: TenantSpec): SpecProblem | undefined {
  const broken = rules.find((rule) => rule.isBroken(spec));
  if (!broken) return undefined;
  const { field, message } = broken;
  return { field, message: typeof message === "string" ? message : message(spec) };
}
