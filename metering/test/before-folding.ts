/** A ledger of the version that did not fold, and what becomes of it. */
import { dayMs } from "../src/core/plausible.ts";
import { windowOf } from "../src/core/window.ts";
import type { Ledger } from "../src/ledger/ledger.ts";
import { hour, instanceId, stored, ten, trafficAt, transitionAt, usageAt } from "./events.ts";

/** Columns of accounts that it did not have. */
export const accountsAdded = ["seen", "first_hour", "last_hour", "from_hour"];

const shop = { tenant: "shop", instance: instanceId(1) };
const gateway = `gw-${instanceId(2)}`;

/** @param strip brings it back to that version */
export async function asBeforeFolding(
  open: (place: string) => Promise<Ledger>,
  place: string,
  strip: () => unknown,
): Promise<Ledger> {
  {
    await using ledger = await open(place);
    await ledger.count(
      "j",
      stored([
        transitionAt(shop, ten, "STARTING", "READY"),
        usageAt(shop, ten + hour, { cpuUs: 5n }),
        trafficAt("shop", ten, { gateway, requests: 9n }),
      ]),
    );
  }
  await strip();
  return open(place);
}

/** What is left after a month in which only another one was heard of. */
export async function foldedAfterMigration(ledger: Ledger) {
  // It may have been heard of until just before.
  await ledger.count(
    "j",
    stored([usageAt(shop, ten + 2 * hour, { cpuUs: 6n })], { storedAt: ten + 2 * hour }),
  );
  let accounts = 0;
  for (let day = 1; day <= 22; day++) {
    const at = ten + day * dayMs;
    const other = { tenant: "other", instance: instanceId(3, at) };
    await ledger.count("j", stored([usageAt(other, at, {})], { storedAt: at }));
    accounts += (await ledger.fold()).accounts;
  }
  const [used] = await ledger.usage({
    tenant: "shop",
    window: windowOf(undefined, undefined),
    cut: "total",
    limit: 1,
  });
  return { accounts, cpuUs: used?.used.cpuUs, requests: used?.used.requests, instances: used?.instances };
}

/** The instance, the gateway's; and of those of the first days. */
export const afterMigration = { accounts: 2 + 3, cpuUs: 6n, requests: 9n, instances: 1n };
