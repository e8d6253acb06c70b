/**
 * Whose silence decides that an account may go: the instance's own, and of accounts of gateways the gateway's. A gateway
 * counts each tenant from its own start on, and goes on from there after months in which the tenant was idle; so does the
 * node of a volume. Pure.
 */
import type { Account } from "./account.ts";
import { isSilent, type LedgerClock, mayHaveFolded } from "./clock.ts";
import type { Observation } from "./observation.ts";
import { dayMs } from "./plausible.ts";

/** Accounts of gateways and of volumes have it in their key, those of instances never. */
export const trafficMark = "/";

/** For so many horizons it is remembered of a gateway that it was there. */
const gatewayHorizons = 10;

/** Key of the account whose silence counts: its own, or `<gateway>/`. */
export function lifeOf(account: string): string {
  const at = account.indexOf(trafficMark);
  return at < 0 ? account : account.slice(0, at + 1);
}

export const isGateway = (account: string): boolean => account.endsWith(trafficMark);

/** Whether the account is to go. @param life of it, as it stands */
export function isOver(account: string, life: Account, clock: LedgerClock): boolean {
  if (!isGateway(account)) return isSilent(life.seen, clock);
  return isSilent(life.seen, { ...clock, foldAfter: clock.foldAfter * gatewayHorizons });
}

/**
 * Whether what is observed may have been folded. So it is judged whether or not it has been, which depends on when there
 * was time for it.
 * @param life as it stands; nothing if it is not known
 * @param storedAt when the journal took it, in ms since 1970
 */
export function isTooLate(
  { account, created }: Observation,
  life: Account | undefined,
  storedAt: number,
  clock: LedgerClock,
): boolean {
  const ofGateway = lifeOf(account) !== account;
  // One whose id is young though it was silent for so long: clocks contradict each other, and it is still there to be counted.
  if (life) return isSilent(life.seen, clock) && (ofGateway || isOlder(created, storedAt, clock.foldAfter));
  // One that was never heard of, as a gateway in reserve, is older than that only by its id.
  const horizon = ofGateway ? clock.foldAfter * gatewayHorizons : clock.foldAfter;
  return mayHaveFolded(clock) && isOlder(created, storedAt, horizon);
}

const isOlder = (created: number, storedAt: number, days: number): boolean =>
  storedAt - created > days * dayMs;
