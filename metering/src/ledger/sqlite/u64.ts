/**
 * u64 in SQLite, whose integers are signed: kept as the same 64 bits, so that values below 2^63 read as they are.
 * `sum()` over them would overflow, so it is taken of the halves.
 */

/** As SQLite keeps it. */
export const toColumn = (value: bigint): bigint => BigInt.asIntN(64, value);

export const fromColumn = (value: bigint): bigint => BigInt.asUintN(64, value);

/** SQL of the two sums of a column; right for up to 2^31 rows. */
export const sumColumns = (column: string): string =>
  `sum((${column} >> 32) & 4294967295) AS ${column}_high, sum(${column} & 4294967295) AS ${column}_low`;

/** Their sum, which may be above 2^64. */
export const joinSums = (high: bigint, low: bigint): bigint => (high << 32n) + low;
