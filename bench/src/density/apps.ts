/** The apps of the density bench: the smallest that there is, and one that takes every core. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Answers with an id that it made when it started, so that a restart shows. */
const smallest = `const id = crypto.randomUUID();
Bun.serve({ port: process.env.PORT, hostname: process.env.HOST, fetch: () => new Response(id) });
`;

/** The same, with a thread for each core that never rests. */
const busy = `for (let i = 0; i < navigator.hardwareConcurrency; i++)
  new Worker(URL.createObjectURL(new Blob(["for (;;) {}"], { type: "application/javascript" })));
${smallest}`;

/** The same as a thread of its host: it is asked by message. */
const thread = `const id = crypto.randomUUID();
const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(id) });
postMessage(server.port);
`;

export interface AppDirectories {
  readonly smallest: string;
  readonly busy: string;
  /** A file, for a Worker. */
  readonly thread: string;
}

export function writeApps(parent: string): AppDirectories {
  const write = (name: string, source: string) => {
    const directory = join(parent, name);
    mkdirSync(directory);
    writeFileSync(join(directory, "index.ts"), source);
    const manifest = { name, module: "index.ts", scripts: { start: "bun index.ts" } };
    writeFileSync(join(directory, "package.json"), JSON.stringify(manifest));
    return directory;
  };
  return {
    smallest: write("smallest", smallest),
    busy: write("busy", busy),
    thread: join(write("thread", thread), "index.ts"),
  };
}
