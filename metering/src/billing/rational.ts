/** Exact fractions of bigints, and the one place where something is rounded. Never negative here. Pure. */

export interface Rational {
  readonly numerator: bigint;
  /** At least 1. */
  readonly denominator: bigint;
}

export const zero: Rational = { numerator: 0n, denominator: 1n };

export const plus = (a: Rational, b: Rational): Rational =>
  a.denominator === b.denominator
    ? { numerator: a.numerator + b.numerator, denominator: a.denominator }
    : {
        numerator: a.numerator * b.denominator + b.numerator * a.denominator,
        denominator: a.denominator * b.denominator,
      };

/** The nearest whole number; of two that are equally near, the even one. */
export function roundHalfEven({ numerator, denominator }: Rational): bigint {
  const whole = numerator / denominator;
  const twice = (numerator % denominator) * 2n;
  if (twice < denominator) return whole;
  if (twice > denominator) return whole + 1n;
  return whole + (whole % 2n);
}

/**
 * As a decimal number without an exponent or trailing zeros: "3600.25".
 * @param digits most of them after the point; the last is rounded half to even
 */
export function decimalOf({ numerator, denominator }: Rational, digits: number): string {
  const scale = 10n ** BigInt(digits);
  const scaled = roundHalfEven({ numerator: numerator * scale, denominator });
  const fraction = `${scaled % scale}`.padStart(digits, "0").replace(/0+$/, "");
  const whole = `${scaled / scale}`;
  return digits === 0 || fraction === "" ? whole : `${whole}.${fraction}`;
}
