/** Identifiers. */
import { monotonicFactory } from "ulid";

const next = monotonicFactory();

/** A ULID: unique everywhere, and rising within this process even in one millisecond. */
export function ulid(): string {
  return next();
}

const dnsLabel = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** Whether `text` can name a tenant or a node: a DNS label of 1 to 63 characters. */
export function isKey(text: string): boolean {
  return dnsLabel.test(text);
}

/** What to tell somebody whose key is none. */
export const keyRule =
  "must be a DNS label: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
