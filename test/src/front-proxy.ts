/** nginx and Caddy as the guide sets them up, with a certificate of our own, on ports of this test. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { run } from "./cli.ts";

export const domain = "apps.example.com";
const guide = join(import.meta.dir, "..", "..", "docs", "behind-a-proxy.md");

export interface Front extends AsyncDisposable {
  /** Port of https, and of plain http. */
  readonly port: number;
  readonly plainPort: number;
  /** PEM file of the authority to trust. */
  readonly ca: string;
}

interface Kind {
  readonly program: string;
  /** The guide's block, as the whole of a configuration. */
  configure(
    block: string,
    ports: { readonly https: number; readonly http: number },
    directory: string,
  ): string;
  command(config: string, directory: string): string[];
}

export const fronts: Readonly<Record<"nginx" | "caddy", Kind>> = {
  nginx: {
    program: "nginx",
    configure: (block, { https, http }, directory) => {
      const site = block
        .replace("listen 443 ssl", `listen 127.0.0.1:${https} ssl`)
        .replace("listen 80;", `listen 127.0.0.1:${http};`);
      const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
        (name) => `${name}_temp_path ${join(directory, name)};`,
      );
      return `pid ${join(directory, "pid")};\nevents {}\nhttp {\naccess_log off;\n${paths.join("\n")}\n${site}\n}\n`;
    },
    command: (config, directory) => ["-c", config, "-e", join(directory, "error.log"), "-g", "daemon off;"],
  },
  caddy: {
    program: "caddy",
    configure: (block, { https, http }) =>
      `{\n\tadmin off\n\thttps_port ${https}\n\thttp_port ${http}\n\tskip_install_trust\n\tdefault_bind 127.0.0.1\n}\n${block}`,
    command: (config) => ["run", "--adapter", "caddyfile", "--config", config],
  },
};

/** Debian has nginx where only root's PATH looks. */
const path = `${process.env.PATH}:/usr/sbin:/usr/local/sbin`;

export function isInstalled(name: keyof typeof fronts): boolean {
  return Bun.which(fronts[name].program, { PATH: path }) !== null;
}

/** @param upstream port of the gateway */
export async function startFront(
  name: keyof typeof fronts,
  upstream: number,
  parent: string,
): Promise<Front> {
  const kind = fronts[name];
  const directory = join(parent, name);
  await mkdir(directory, { recursive: true });
  const [crt, key] = await makeCertificate(directory);
  const ports = { https: await freePort(), http: await freePort() };
  const block = (await blockOf(name === "nginx" ? "nginx" : "caddyfile"))
    .replaceAll("/etc/ssl/apps.example.com.crt", crt)
    .replaceAll("/etc/ssl/apps.example.com.key", key)
    .replaceAll("127.0.0.1:8080", `127.0.0.1:${upstream}`);
  const config = join(directory, "config");
  await writeFile(config, kind.configure(block, ports, directory));
  const said = Bun.file(join(directory, "said.log"));
  const child = Bun.spawn([Bun.which(kind.program, { PATH: path })!, ...kind.command(config, directory)], {
    env: { PATH: path, HOME: directory, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory },
    stdin: "ignore",
    stdout: said,
    stderr: said,
  });
  try {
    await waitUntil(
      async () => {
        if (child.exitCode !== null)
          throw new Error(`${name} ended with ${child.exitCode}: ${await said.text()}`);
        return Promise.all([ports.https, ports.http].map(accepts)).then((all) => all.every(Boolean));
      },
      { deadlineMs: 15_000, what: `${name} to listen` },
    );
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
  return {
    port: ports.https,
    plainPort: ports.http,
    ca: crt,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

/** The guide's block of that language. */
async function blockOf(language: string): Promise<string> {
  const text = await readFile(guide, "utf8");
  const block = text.split(`\n\`\`\`${language}\n`)[1]?.split("```")[0];
  if (!block) throw new Error(`${guide} has no block of ${language}`);
  return block;
}

async function makeCertificate(directory: string): Promise<[crt: string, key: string]> {
  const [crt, key] = [join(directory, "site.crt"), join(directory, "site.key")];
  const made = await run(
    [
      ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
      ...["-days", "2", "-subj", `/CN=${domain}`, "-addext", `subjectAltName=DNS:${domain},DNS:*.${domain}`],
      ...["-keyout", key, "-out", crt],
    ],
    { env: { PATH: path, HOME: directory } },
  );
  if (made.code !== 0) throw new Error(`openssl made no certificate: ${made.stderr}`);
  return [crt, key];
}

async function freePort(): Promise<number> {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = server;
  server.stop(true);
  return port;
}

async function accepts(port: number): Promise<boolean> {
  try {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
    socket.end();
    return true;
  } catch {
    return false; // not yet
  }
}
