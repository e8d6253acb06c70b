/**
 * How often nodes report, and what follows from it: the more there are the less often, so that reports take a bounded
 * share of the scheduler.
 */
import type { CoreConfig } from "./config.ts";

export interface Periods {
  /** Between two reports of a node, in ms. */
  readonly report: number;
  /** Without a report for so long it is late: nothing new goes there. */
  readonly late: number;
  /** And for so long it is lost. */
  readonly lost: number;
}

/** Of one report: about 2,500 a second, of 0.2 ms each (FACTS: 216 µs a unary call). */
const msPerNode = 0.4;
const missedUntilLate = 3.5;
const lateUntilLost = 2.5;

export function periodsOf(config: CoreConfig, nodes: number): Periods {
  const report = Math.max(config.reportPeriodMs, nodes * msPerNode);
  if (report === config.reportPeriodMs) return { report, late: config.nodeLateMs, lost: config.nodeLostMs };
  const late = Math.max(config.nodeLateMs, missedUntilLate * report);
  return { report, late, lost: Math.max(config.nodeLostMs, lateUntilLost * late) };
}
