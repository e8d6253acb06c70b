/** Tiny apps for tests, each a directory with one file. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

export const apps = {
  hello: `Bun.serve({ port: process.env.PORT, fetch: () => new Response("hello from " + process.pid) });`,
  /** Answers with an id that it made at its start. */
  identity: `const id = crypto.randomUUID();
  Bun.serve({ port: process.env.PORT, fetch: () => new Response(id) });`,
  /** Takes every core for as long as it runs. */
  busy: `for (let i = 0; i < navigator.hardwareConcurrency; i++)
    new Worker(URL.createObjectURL(new Blob(["for (;;) {}"], { type: "application/javascript" })));
  Bun.serve({ port: process.env.PORT, fetch: () => new Response("busy") });`,
  exitsAtOnce: `console.log("I am not in the mood"); process.exit(3);`,
  neverListens: `console.log("thinking"); setInterval(() => {}, 1000);`,
  notHealthy: `Bun.serve({ port: process.env.PORT, fetch: () => new Response("no", { status: 500 }) });`,
  slow: `Bun.serve({ port: process.env.PORT, async fetch(request) {
    const ms = Number(new URL(request.url).searchParams.get("ms") ?? 0);
    await Bun.sleep(ms);
    return new Response("slept " + ms);
  } });`,
  moody: `let status = 200;
  const held = [];
  const deeds = {
    "/": () => ({ uid: process.getuid(), pid: process.pid }),
    "/healthz": () => "health",
    "/sicken": () => (status = 500),
    "/eat": () => { for (let i = 0; i < 512; i++) held.push(Buffer.alloc(2 ** 20, 1)); },
  };
  Bun.serve({ port: process.env.PORT, fetch(request) {
    const { pathname } = new URL(request.url);
    const said = deeds[pathname]() ?? "done";
    return Response.json(said, { status: pathname === "/healthz" ? status : 200 });
  } });`,
} as const;

export async function writeApp(
  parent: string,
  name: string,
  source: keyof typeof apps,
  warren: object = {},
): Promise<string> {
  const directory = join(parent, name);
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, "index.ts"), apps[source]);
  await writeFile(join(directory, "package.json"), JSON.stringify({ name, module: "index.ts", warren }));
  return directory;
}
