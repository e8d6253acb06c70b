/** What a join token is good for, and when it is good for nothing any more. */
import { expect, test } from "bun:test";
import { fromTimestamp } from "@warren/common/time";
import type { JoinToken } from "@warren/common/tls/join-token";
import { Role } from "@warren/proto/common";
import { revoke, type Spending, spend, spentEntry, spentFrom } from "../src/spent-tokens.ts";

const now = 1_700_000_000_000;
const token: JoinToken = {
  id: "01ARZ3NDEKTSV4RRFFQ69G5FAV",
  cell: "prod",
  ca: "0".repeat(64),
  names: "n1",
  role: Role.AGENT,
  hosts: [],
  uses: 1,
  expiresAt: now + 3_600_000,
};
const open = { ...token, names: "web-*", uses: 2 };

const recordOf = (spending: Spending) => {
  if (spending.kind === "refused") throw new Error(spending.why);
  return spending.record;
};
/** As the next leader reads it. */
const reread = (spending: Spending) => {
  const { key, value } = spentEntry(recordOf(spending));
  return spentFrom({ entries: new Map([[key, value!]]) })[0]!;
};

test("once, for its own name; the same key may ask again, also of the next leader", () => {
  expect(spend(undefined, token, "n2", "a", now)).toMatchObject({ kind: "refused" });
  const spent = spend(undefined, token, "n1", "a", now);
  expect(spent).toMatchObject({ kind: "spent", record: { uses: [{ name: "n1", keyHash: "a" }] } });
  for (const record of [recordOf(spent), reread(spent)]) {
    expect(spend(record, token, "n1", "a", now + 1)).toEqual({ kind: "again", record });
    expect(spend(record, token, "n1", "b", now + 1)).toMatchObject({
      kind: "refused",
      why: expect.stringContaining("was used already, for n1"),
    });
  }
});

test("one for several: each name once, and no more of them than it says", () => {
  const first = recordOf(spend(undefined, open, "web-1", "a", now));
  expect(spend(first, open, "web-1", "b", now)).toMatchObject({ kind: "refused" });
  const second = recordOf(spend(first, open, "web-2", "b", now));
  expect(second.uses.map(({ name }) => name)).toEqual(["web-1", "web-2"]);
  expect(spend(second, open, "web-3", "c", now)).toMatchObject({ kind: "refused" });
  expect(spend(second, open, "web-1", "a", now)).toMatchObject({ kind: "again" });
});

test("revoked: for nobody, known before or not, and it stays known for longer than any token lives", () => {
  const used = recordOf(spend(undefined, token, "n1", "a", now));
  for (const before of [undefined, used]) {
    const revoked = revoke(before, token.id, now);
    expect(spend(revoked, token, "n1", "a", now)).toMatchObject({
      kind: "refused",
      why: expect.stringContaining("was revoked"),
    });
    expect(fromTimestamp(revoked.keptUntil, 0)).toBeGreaterThan(token.expiresAt);
  }
});

test("a record that cannot be read is named: no token comes to life again", () => {
  const entries = new Map([["join-token.X", new TextEncoder().encode('{"uses":7}')]]);
  expect(() => spentFrom({ entries })).toThrow("join-token.X");
});
