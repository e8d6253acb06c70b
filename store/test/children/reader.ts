/** Follows the journal from its start and names each record. */
import { openJournalReader } from "@warren/store";
import type { Place } from "../harness.ts";

const place = JSON.parse(process.argv[2] ?? "") as Place;
await using reader = await openJournalReader(place);
console.log("ready");
for await (const batch of reader.read({ durable: "child", signal: AbortSignal.timeout(60_000) })) {
  for (const { seq, id } of batch.records) console.log(`read ${seq} ${id}`);
  await batch.ack();
}
