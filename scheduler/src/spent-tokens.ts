/**
 * What became of the join tokens, as the state log has it: a token is believed for its signature, and what must be
 * remembered is who it was used for, until it has expired. Decisions only; `services/enrol-rpcs.ts` performs them.
 */
import { create, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { toTimestamp } from "@warren/common/time";
import { grantsName, isOpen, type JoinToken, mostTtlMs } from "@warren/common/tls/join-token";
import { type SpentJoinToken, SpentJoinTokenSchema } from "@warren/proto/scheduler";
import type { StateSnapshot } from "@warren/store";
import type { Entry } from "./records.ts";

/** Most that are remembered at once; who would be one more is refused until others have expired. */
export const mostSpent = 10_000;
/** Remembered for so much longer than it is valid: the next leader's clock may be behind this one's. */
const marginMs = 86_400_000;

export type Spending =
  | { readonly kind: "spent"; readonly record: SpentJoinToken }
  /** The same host asks for the same key again: its answer was lost. */
  | { readonly kind: "again"; readonly record: SpentJoinToken }
  | { readonly kind: "refused"; readonly why: string };

/**
 * Whether that key may have a certificate of that name for the token.
 * @param before what is remembered of the token
 * @param now ms since 1970
 */
export function spend(
  before: SpentJoinToken | undefined,
  token: JoinToken,
  name: string,
  keyHash: string,
  now: number,
): Spending {
  if (before?.revoked) return refused(`join token ${token.id} was revoked`);
  if (!grantsName(token, name))
    return refused(`join token ${token.id} is for ${token.names}, not for ${name}`);
  const uses = before?.uses ?? [];
  if (before && uses.some((use) => use.name === name && use.keyHash === keyHash))
    return { kind: "again", record: before };
  const same = uses.find((use) => use.name === name);
  if (same && isOpen(token))
    return refused(`join token ${token.id} has given the name ${name} to another host`);
  if (uses.length >= token.uses) {
    const whom = uses.map((use) => use.name).join(", ");
    return refused(`join token ${token.id} was used already, for ${whom}: make a new one for each host`);
  }
  const record = create(SpentJoinTokenSchema, {
    id: token.id,
    keptUntil: toTimestamp(token.expiresAt + marginMs),
    uses: [...uses, { name, role: token.role, at: toTimestamp(now), keyHash }],
  });
  return { kind: "spent", record };
}

/** What is remembered of a token that nobody shall use any more, whatever is known of it. */
export function revoke(before: SpentJoinToken | undefined, id: string, now: number): SpentJoinToken {
  const { keptUntil = toTimestamp(now + mostTtlMs + marginMs), uses = [] } = before ?? {};
  return create(SpentJoinTokenSchema, { id, keptUntil, revoked: true, uses });
}

const prefix = "join-token.";

export function spentEntry(record: SpentJoinToken): Entry {
  return {
    key: `${prefix}${record.id}`,
    value: new TextEncoder().encode(JSON.stringify(toJson(SpentJoinTokenSchema, record))),
  };
}

export function forgottenEntry(id: string): Entry {
  return { key: `${prefix}${id}`, value: null };
}

/**
 * What the schedulers before had remembered.
 * @throws Error naming a record that cannot be read: a token that was used must not come to life again
 */
export function spentFrom({ entries }: Pick<StateSnapshot, "entries">): SpentJoinToken[] {
  const spent: SpentJoinToken[] = [];
  for (const [key, bytes] of entries) {
    if (!key.startsWith(prefix)) continue;
    try {
      const json = JSON.parse(new TextDecoder().decode(bytes)) as JsonValue;
      spent.push(fromJson(SpentJoinTokenSchema, json, { ignoreUnknownFields: true }));
    } catch (error) {
      throw new Error(`the state log's record ${key} cannot be read: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
  return spent;
}

function refused(why: string): Spending {
  return { kind: "refused", why };
}
