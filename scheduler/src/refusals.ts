/** Refusals of the core as Connect/gRPC errors with typed details: what was wrong, and what to do. */

import { exitReasonText } from "@warren/common/exit-reason";
import { Code, type ConnectError, detail, rpcError } from "@warren/common/rpc/errors";
import { toDuration, toTimestamp } from "@warren/common/time";
import {
  CapReachedSchema,
  type Exit,
  ExitReason,
  LimitReachedSchema,
  NoNodeSchema,
  RetryDelaySchema,
  StartFailedSchema,
} from "@warren/proto/common";
import { refusedText } from "./core/filters.ts";
import { limitText } from "./core/limits.ts";
import type { Refusal } from "./core/refusal.ts";

export function exitText(exit: Exit): string {
  const reason = exitReasonText(exit.reason);
  const how = exit.signal ? ` by ${exit.signal}` : exit.code !== undefined ? ` with code ${exit.code}` : "";
  const why = exit.message ? `: ${exit.message}` : "";
  return exit.reason === ExitReason.UNSPECIFIED ? exit.message : `${reason}${how}${why}`;
}

/** Its last lines, where a person sees them. */
function outputOf(exit: Exit | undefined): string {
  const lines = exit?.lastOutput.slice(-5) ?? [];
  return lines.length ? `\n${lines.join("\n")}` : "";
}

export function toRpcError(refusal: Refusal): ConnectError {
  switch (refusal.kind) {
    case "no-tenant":
      return rpcError(Code.NotFound, `no tenant ${refusal.tenant}: apply its spec first ('warren deploy')`);
    case "no-http":
      return rpcError(Code.NotFound, `tenant ${refusal.tenant} serves no HTTP (its readiness is none)`);
    case "deleting":
      return rpcError(
        Code.FailedPrecondition,
        `tenant ${refusal.tenant} is being deleted: apply it again when it is gone`,
      );
    case "no-source":
      return rpcError(
        Code.FailedPrecondition,
        `tenant ${refusal.tenant} has no source: deploy a release, or give its spec a directory`,
      );
    case "no-release":
      return rpcError(Code.NotFound, `no release ${refusal.digest}: upload it first`);
    case "no-node-of-name":
      return rpcError(Code.NotFound, `no node ${refusal.node} in the roster ('warren nodes' lists them)`);
    case "changed": {
      const { tenant, expected, version } = refusal;
      const is = version === 0 ? "it is not there" : `it is at version ${version} now`;
      return rpcError(
        Code.Aborted,
        `tenant ${tenant} is not at version ${expected} (${is}): read its spec again, and apply your change to that`,
      );
    }
    case "no-volume":
      return rpcError(
        Code.NotFound,
        `tenant ${refusal.tenant} has no volume ${refusal.name} ('warren volumes' lists them)`,
      );
    case "volume":
      return rpcError(
        Code.FailedPrecondition,
        `volume ${refusal.name} of tenant ${refusal.tenant}: ${refusal.message}`,
      );
    case "has-volumes":
      return rpcError(
        Code.FailedPrecondition,
        `tenant ${refusal.tenant} has volumes (${refusal.names.join(", ")}): say what becomes of them, --keep-volumes or --remove-volumes`,
      );
    case "loses-volumes":
      return rpcError(
        Code.FailedPrecondition,
        `node ${refusal.node} holds volumes of which there is no backup (${refusal.volumes.join(", ")}): bring it back, or --lose-volumes gives them up`,
      );
    case "bad-spec":
      return rpcError(Code.InvalidArgument, `spec.${refusal.field}: ${refusal.message}`);
    case "rolled-back":
      return rpcError(
        Code.FailedPrecondition,
        `tenant ${refusal.tenant}: ${refusal.message}${outputOf(refusal.exit)}`,
        ...(refusal.exit ? [detail(StartFailedSchema, { exit: refusal.exit })] : []),
      );
    case "node-busy":
      return rpcError(
        Code.ResourceExhausted,
        `tenant ${refusal.tenant} sleeps, and its node has as many awake as it may: ${refusal.message}`,
      );
    case "drain-cancelled":
      return rpcError(Code.Aborted, refusal.message);
    case "late":
      return rpcError(Code.DeadlineExceeded, refusal.what);
    case "too-many":
      return rpcError(
        Code.ResourceExhausted,
        `there are ${refusal.limit} ${refusal.what} already, the most allowed: try later`,
      );
    case "cap":
      return rpcError(
        Code.ResourceExhausted,
        `the cap is reached: ${refusal.live} instances are live of ${refusal.maxConcurrent} allowed, and no idle one could make room in time; raise maxConcurrent or try later`,
        detail(CapReachedSchema, refusal),
      );
    case "backoff": {
      const last = refusal.exit ? `; the last ended ${exitText(refusal.exit)}` : "";
      return rpcError(
        Code.Unavailable,
        `tenant ${refusal.tenant} has failed ${refusal.failures} times in a row and is tried again in ${Math.ceil(refusal.delayMs)} ms${last} ('warren logs ${refusal.tenant}' shows its output)${outputOf(refusal.exit)}`,
        detail(RetryDelaySchema, { delay: toDuration(refusal.delayMs) }),
      );
    }
    case "start-failed":
      return rpcError(
        Code.FailedPrecondition,
        `tenant ${refusal.instance.tenant} could not be started on node ${refusal.instance.node}: ${exitText(refusal.exit)}${outputOf(refusal.exit)}`,
        detail(StartFailedSchema, { instance: refusal.instance, exit: refusal.exit }),
      );
    case "no-node":
      return rpcError(
        refusal.transient ? Code.Unavailable : Code.FailedPrecondition,
        `no node can take tenant ${refusal.tenant}: ${refusedText(refusal.refused)}`,
        detail(NoNodeSchema, { refused: refusal.refused }),
      );
    case "limit":
      return rpcError(
        Code.ResourceExhausted,
        `tenant ${refusal.tenant} has reached a limit on its use: ${limitText(refusal)}; raise the limit in its spec, or wait`,
        detail(LimitReachedSchema, {
          limit: refusal.limit,
          used: refusal.used,
          until: toTimestamp(refusal.until),
        }),
      );
    case "deadline":
      return rpcError(Code.DeadlineExceeded, `tenant ${refusal.tenant}: ${refusal.what}`);
    case "store-down":
      return rpcError(
        Code.Unavailable,
        `${refusal.message}: the store cannot be reached; what is warm goes on, try again later`,
      );
    case "join-again":
    case "node-reports":
      return rpcError(Code.FailedPrecondition, refusal.message);
    case "duplicate-node":
      return rpcError(Code.AlreadyExists, refusal.message);
  }
}
