/** Appends to the journal and the state until it is killed, and says what was acknowledged. */
import { openStore } from "@warren/store";
import type { Place } from "../harness.ts";
import { record } from "../harness.ts";

const place = JSON.parse(process.argv[2] ?? "") as Place;
const store = await openStore(place);
let { lastSeq } = await store.state.load();

async function journal(): Promise<never> {
  for (let n = 0; ; n += 3) {
    const ids = [n, n + 1, n + 2];
    await store.journal.append(ids.map((id) => record(id)));
    for (const id of ids) console.log(`stored ${record(id).id}`);
  }
}

async function state(): Promise<never> {
  for (let n = 0; ; n++) {
    lastSeq = await store.state.append(`k.${n % 7}`, new TextEncoder().encode(String(n)), lastSeq);
    console.log(`state ${n % 7} ${n} ${lastSeq}`);
  }
}

await Promise.all([journal(), state()]);
