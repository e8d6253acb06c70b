/** Answers that the gateway gives itself, in place of a tenant. */
import { Code, ConnectError, detailOf, isRpcCode } from "@warren/common/rpc/errors";
import { fromDuration, fromTimestamp } from "@warren/common/time";
import {
  ExitReason,
  LimitReachedSchema,
  NoNodeSchema,
  RetryDelaySchema,
  StartFailedSchema,
} from "@warren/proto/common";

/** Why a request was not answered by its tenant. */
export interface Refusal {
  readonly status: number;
  /** For programs: stable, kebab-case. */
  readonly error: string;
  /** For a person. Never holds what a tenant wrote. */
  readonly message: string;
  /** Seconds, for Retry-After. */
  readonly retryAfter?: number;
}

/** Thrown where a request ends in a refusal. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
  constructor(readonly refusal: Refusal) {
    super(refusal.message);
  }
}

/** The refusal for a failed Ensure. */
export function refusalOf(error: unknown, tenant: string): Refusal {
  if (error instanceof RefusedError) return error.refusal;
  if (isRpcCode(error, Code.NotFound)) {
    return { status: 404, error: "no-such-tenant", message: `no tenant "${tenant}"` };
  }
  const limit = detailOf(error, LimitReachedSchema);
  if (limit) {
    const seconds = Math.ceil((fromTimestamp(limit.until, 0) - Date.now()) / 1000);
    const message = `"${tenant}" has used what it is allowed to for now`;
    return { status: 429, error: "limit-reached", message, retryAfter: Math.max(1, seconds) };
  }
  if (isRpcCode(error, Code.ResourceExhausted)) {
    const message = `every place is taken by a busy tenant; "${tenant}" could not be started`;
    return { status: 503, error: "at-capacity", message, retryAfter: 1 };
  }
  if (isRpcCode(error, Code.DeadlineExceeded)) return tooLate(tenant);
  if (isRpcCode(error, Code.FailedPrecondition)) return unstartable(error, tenant);
  if (isRpcCode(error, Code.Unavailable)) return unavailable(error, tenant);
  if (isRpcCode(error, Code.InvalidArgument)) {
    return { status: 400, error: "bad-tenant", message: `"${tenant}" is no tenant key` };
  }
  if (!(error instanceof ConnectError)) {
    return {
      status: 502,
      error: "gateway-failed",
      message: `the answer of "${tenant}" could not be passed on`,
    };
  }
  return {
    status: 502,
    error: "scheduler-failed",
    message: `"${tenant}" could not be started`,
    retryAfter: 1,
  };
}

/** The hold's deadline passed. */
export function tooLate(tenant: string): Refusal {
  return {
    status: 504,
    error: "not-ready-in-time",
    message: `"${tenant}" was not ready in time`,
    retryAfter: 1,
  };
}

/** No scheduler answers, and no instance is known. */
export function isCutOff(error: unknown): boolean {
  return isRpcCode(error, Code.Unavailable) && !detailOf(error, RetryDelaySchema);
}

/** Until a tenant that failed may be started again, in ms; undefined if that is not why it was refused. */
export function backoffOf(error: unknown): number | undefined {
  if (!isRpcCode(error, Code.Unavailable)) return undefined;
  const detail = detailOf(error, RetryDelaySchema);
  return detail && fromDuration(detail.delay, 1_000);
}

function unavailable(error: unknown, tenant: string): Refusal {
  const delayMs = backoffOf(error);
  if (delayMs === undefined) {
    const message = `scheduler not reachable, and no running instance of "${tenant}" is known`;
    return { status: 503, error: "scheduler-unreachable", message, retryAfter: 1 };
  }
  const seconds = Math.max(1, Math.ceil(delayMs / 1000));
  const message = `"${tenant}" keeps failing and is in back-off; next try in ${seconds} s`;
  return { status: 503, error: "backing-off", message, retryAfter: seconds };
}

function unstartable(error: unknown, tenant: string): Refusal {
  const failed = detailOf(error, StartFailedSchema);
  if (failed) {
    const reason = ExitReason[failed.exit?.reason ?? ExitReason.UNKNOWN] ?? "UNKNOWN";
    const how = reason.toLowerCase().replaceAll("_", "-");
    const code = failed.exit?.code !== undefined ? ` (exit code ${failed.exit.code})` : "";
    const hint = failed.exit?.hint ? `; ${failed.exit.hint}` : "";
    return {
      status: 502,
      error: "start-failed",
      message: `"${tenant}" failed to start: ${how}${code}${hint}`,
    };
  }
  if (detailOf(error, NoNodeSchema)) {
    return { status: 503, error: "no-node", message: `no node can take "${tenant}"`, retryAfter: 5 };
  }
  return { status: 503, error: "cannot-start", message: `"${tenant}" cannot be started now`, retryAfter: 1 };
}

/** The refusal as an answer: small, uncached, and nothing in it that is not meant for a client. */
export function answer(refusal: Refusal, tenant: string, requestId: string, head: boolean): Response {
  const headers = new Headers({
    "Content-Type": "application/json; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Request-Id": requestId,
  });
  if (refusal.retryAfter !== undefined) headers.set("Retry-After", String(refusal.retryAfter));
  const body = JSON.stringify({ error: refusal.error, tenant, message: refusal.message, requestId });
  return new Response(head ? null : `${body}\n`, { status: refusal.status, headers });
}
