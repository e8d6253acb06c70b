/** Takes the lease, appends to the state for ever, and says when it is told that its time is over. */
import { openStore, StaleWriterError, StoreUnavailableError } from "@warren/store";
import { type Place, SHORT_LEASE } from "../harness.ts";

const { holder, defaults, ...place } = JSON.parse(process.argv[2] ?? "") as Place & {
  holder: string;
  defaults?: boolean;
};
const store = await openStore({ ...place, lease: defaults ? undefined : SHORT_LEASE });
const lease = await store.acquireLease({ holder, address: "child:1", signal: AbortSignal.timeout(30_000) });
lease.lost.addEventListener("abort", () => console.log(`lost ${(lease.lost.reason as Error).name}`));
let { lastSeq } = await store.state.load();
console.log(`leads ${lease.epoch}`);
for (let n = 0; ; n++) {
  try {
    lastSeq = await store.state.append("child", new TextEncoder().encode(String(n)), lastSeq);
    console.log(`wrote ${n}`);
    await Bun.sleep(5);
  } catch (error) {
    if (error instanceof StoreUnavailableError) continue;
    if (!(error instanceof StaleWriterError)) throw error;
    console.log("stale");
    break;
  }
}
