/** A load in a process of its own: options as one line on stdin, counts while it runs and the report on stdout. */
import { startLoad } from "./load.ts";
import type { LoadOptions } from "./options.ts";

const lines = (console as unknown as AsyncIterable<string>)[Symbol.asyncIterator]();
const load = startLoad(JSON.parse((await lines.next()).value) as LoadOptions);
const say = (what: object): boolean => process.stdout.write(`${JSON.stringify(what)}\n`);
const telling = setInterval(() => say({ ok: load.ok, failed: load.failed }), 50);
// A second line, or the end of whoever started us.
void lines.next().then(() => load.stop());
const report = await load.done;
clearInterval(telling);
process.stdout.write(`${JSON.stringify({ report })}\n`, () => process.exit(0));
