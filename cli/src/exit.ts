/** Exit codes that mean something, and errors in a sentence. */
import { PackError } from "@warren/client";
import { ConfigError } from "@warren/common/config";
import { CredentialsError } from "@warren/common/rpc/credentials";
import { Code, ConnectError } from "@warren/common/rpc/errors";
import { ServeError } from "@warren/common/rpc/server";
import { errorColors as pc } from "./colors.ts";
import { escaped } from "./terminal.ts";

export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  unavailable: 5,
  deadline: 6,
  denied: 7,
  interrupted: 130,
  terminated: 143,
} as const;

/** What `--help` says of them. */
export const exitCodesHelp = `
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused (the start failed, the cap is reached), 5 not
reachable or in back-off, 6 not done in time, 7 credential refused, 130 interrupted (Ctrl-C), 143 ended by SIGTERM.`;

/** Something the user can put right; the message says how. */
export class UserError extends Error {
  override readonly name = "UserError";
  constructor(
    message: string,
    readonly exitCode: number = exitCodes.usage,
  ) {
    super(message);
  }
}

/** Ctrl-C, or SIGTERM, while a verb was under way; nothing is to be said of it. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  constructor(readonly signal: "SIGINT" | "SIGTERM") {
    super(`interrupted by ${signal}`);
  }

  /** As a shell would have it: 128 and the signal's number. */
  get exitCode(): number {
    return this.signal === "SIGINT" ? exitCodes.interrupted : exitCodes.terminated;
  }
}

/** Something failed and has been told: only the exit code is left. */
export class Reported extends Error {
  override readonly name = "Reported";
  constructor(readonly exitCode: number) {
    super("failed");
  }
}

const byCode: Partial<Record<Code, number>> = {
  [Code.InvalidArgument]: exitCodes.usage,
  [Code.NotFound]: exitCodes.notFound,
  [Code.FailedPrecondition]: exitCodes.refused,
  [Code.Aborted]: exitCodes.refused,
  [Code.ResourceExhausted]: exitCodes.refused,
  [Code.AlreadyExists]: exitCodes.refused,
  [Code.Unimplemented]: exitCodes.refused,
  [Code.Unavailable]: exitCodes.unavailable,
  [Code.DeadlineExceeded]: exitCodes.deadline,
  [Code.Unauthenticated]: exitCodes.denied,
  [Code.PermissionDenied]: exitCodes.denied,
  [Code.Canceled]: exitCodes.interrupted,
};

/** Errors whose message was written for the user; of others the stack is shown, since they are ours. */
const forUsers = new Set([
  "StoreUnavailableError",
  "StoreLockedError",
  "StoreMismatchError",
  "SnapshotError",
  "VerifyError",
  "NodeLockedError",
  "GatewayError",
  "DeadlineError",
  "JoinTokenError",
  "PinError",
]);

export function exitCodeOf(error: unknown): number {
  if (error instanceof UserError || error instanceof Interrupted || error instanceof Reported)
    return error.exitCode;
  if (error instanceof ConnectError) return byCode[error.code] ?? exitCodes.failed;
  if (error instanceof ConfigError || error instanceof PackError) return exitCodes.usage;
  return exitCodes.failed;
}

/** "not_found", as gRPC writes it. */
function codeName(code: Code): string {
  return (Code[code] ?? "unknown").replace(/(?<=[a-z])[A-Z]/g, "_$&").toLowerCase();
}

export function messageOf(error: unknown): string {
  if (error instanceof ConnectError)
    return `${escaped(error.rawMessage)} ${pc.dim(`(${codeName(error.code)})`)}`;
  if (!(error instanceof Error)) return escaped(String(error));
  const known =
    error instanceof UserError ||
    error instanceof ConfigError ||
    error instanceof PackError ||
    error instanceof CredentialsError ||
    error instanceof ServeError ||
    isOfSystem(error) ||
    forUsers.has(error.name);
  return escaped(known ? error.message : (error.stack ?? error.message));
}

/** A file that is not there, a full disk: not ours, and it names the path. */
const isOfSystem = (error: Error): boolean => typeof (error as NodeJS.ErrnoException).syscall === "string";

export function reportError(message: string): void {
  process.stderr.write(`${pc.red("error:")} ${message}\n`);
}

/** Says what went wrong, unless that has been done, and ends the process. */
export function fail(error: unknown): never {
  if (!(error instanceof Reported)) reportError(messageOf(error));
  process.exit(exitCodeOf(error));
}
