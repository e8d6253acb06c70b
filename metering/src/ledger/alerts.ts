/** For so long after its month an alert is remembered, in ms: should a clock step back over its end, it is not repeated. */
export const alertsKeptMs = 100 * 24 * 3_600_000;
