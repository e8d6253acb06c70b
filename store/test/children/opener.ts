/** Opens the embedded store and holds it. */
import { openEmbeddedStore } from "@warren/store";

const { directory } = JSON.parse(process.argv[2] ?? "") as { directory: string };
await openEmbeddedStore({ directory });
console.log("open");
setInterval(() => {}, 1000);
