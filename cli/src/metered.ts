/** What the verbs that ask the metering process have in common. */

import type { Warren } from "@warren/client";
import { streaming } from "@warren/common/rpc/client";
import { Code, ConnectError } from "@warren/common/rpc/errors";
import { rpcLimits } from "@warren/common/rpc/limits";
import { toTimestamp } from "@warren/common/time";
import { ExportFormat, type TenantUsage, UsageWindow } from "@warren/proto/metering";
import type { Command } from "commander";
import { exitCodes, UserError } from "./exit.ts";
import { asVerb, type VerbOptions, withWarren } from "./verb.ts";

export type MeteringClient = Warren["metering"];

/** As `asVerb`, and `--metering`. */
export function asMeteredVerb(command: Command): Command {
  return asVerb(command).option(
    "--metering <url>",
    "the cell's metering process (default: WARREN_METERING_URL, or that of 'warren up')",
  );
}

/**
 * Opens a client of the metering process, and closes it.
 * @throws UserError when nobody said where it is, or it is not there
 */
export function withMetering<T>(
  options: VerbOptions,
  run: (metering: MeteringClient, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  return withWarren(options, async (warren, signal) => {
    try {
      return await run(meteringOf(warren), signal);
    } catch (error) {
      if (!(error instanceof ConnectError) || error.code !== Code.Unavailable) throw error;
      throw new UserError(
        `the metering process does not answer: ${error.rawMessage}\nIs it running? Tenants are, whether it is or not; what they use is counted once it is back.`,
        exitCodes.unavailable,
      );
    }
  });
}

function meteringOf(warren: Warren): MeteringClient {
  if (warren.hasMetering) return warren.metering;
  throw new UserError(
    "it is not known where the cell's metering process is: set WARREN_METERING_URL, or name it with --metering https://host:port",
  );
}

export const windows = {
  total: UsageWindow.TOTAL,
  hour: UsageWindow.HOUR,
  day: UsageWindow.DAY,
  month: UsageWindow.MONTH,
} as const;

export type By = keyof typeof windows;

export const byNames = Object.keys(windows) as By[];

export interface Span {
  readonly tenant?: string;
  /** ms since 1970. */
  readonly from?: number;
  readonly to?: number;
  readonly by: By;
  readonly settled?: boolean;
  /** How long the whole of it may take, in ms; default 15 minutes. */
  readonly timeout?: number;
}

/** The same for the contract. */
const exportRequest = ({ tenant = "", from, to, by, settled }: Span, format: ExportFormat) => ({
  tenant,
  start: from === undefined ? undefined : toTimestamp(from),
  end: to === undefined ? undefined : toTimestamp(to),
  window: windows[by],
  settledOnly: settled,
  format,
});

/** Rows, by tenant and then window, however many there are. */
export async function* usageRows(
  metering: MeteringClient,
  span: Span,
  signal: AbortSignal,
): AsyncGenerator<TenantUsage> {
  for await (const { rows } of exported(metering, span, ExportFormat.ROWS, signal)) yield* rows;
}

/** Text of the export, part by part. */
export async function* exportText(
  metering: MeteringClient,
  span: Span,
  format: ExportFormat,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for await (const { chunk } of exported(metering, span, format, signal)) yield chunk;
}

function exported(metering: MeteringClient, span: Span, format: ExportFormat, signal: AbortSignal) {
  const { timeout: timeoutMs = rpcLimits.maxTimeoutMs } = span;
  const request = exportRequest(span, format);
  return streaming((own) => metering.export(request, { signal: own, timeoutMs }), signal);
}
