/** Counts as the metering process does, and is killed after its first commit, before that is acknowledged. */
import { createLogger } from "@warren/common/log";
import { systemClock } from "@warren/common/time";
import type { JournalReader } from "@warren/store";
import { Follower } from "../../src/follower.ts";
import { SqliteLedger } from "../../src/ledger/sqlite/ledger.ts";
import { meteringMetrics } from "../../src/metrics.ts";
import { openReader, sourceOf } from "../../src/source.ts";

const options = JSON.parse(process.argv[2] ?? "");
const source = sourceOf(options);
const ledger = SqliteLedger.open(options.stateDirectory);
const journal = await openReader(options);
const reader: JournalReader = {
  async *read(how) {
    for await (const { records, pending } of journal.read(how)) {
      const ack = async () => process.kill(process.pid, "SIGKILL");
      yield { records, pending, ack: async () => void (await ack()) };
    }
  },
};
Follower.start({
  reader,
  ledger,
  source,
  metrics: meteringMetrics(ledger, source),
  clock: systemClock,
  log: createLogger({ process: "metering" }),
});
