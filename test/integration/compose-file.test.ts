/** The shipped compose file, without containers: it is valid, and what its services mount and scrape is there. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run, warrenBin } from "../src/cli.ts";

const deploy = join(import.meta.dir, "..", "..", "deploy");
const env = { PATH: process.env.PATH ?? "", HOME: "/" };

interface Service {
  readonly command?: string | readonly string[];
  readonly volumes?: readonly string[];
  readonly environment?: Readonly<Record<string, string | null>>;
}
interface Scrape {
  readonly static_configs: readonly { readonly targets: readonly string[] }[];
}

let services: Readonly<Record<string, Service>>;
let scrapes: readonly Scrape[];
let credentials: string;

beforeAll(async () => {
  credentials = await mkdtemp(join(tmpdir(), "warren-compose-"));
  const parsed = async (file: string) => Bun.YAML.parse(await readFile(join(deploy, file), "utf8"));
  ({ services } = (await parsed("docker-compose.yml")) as { services: Record<string, Service> });
  ({ scrape_configs: scrapes } = (await parsed("prometheus.yml")) as { scrape_configs: Scrape[] });
  // The script of the service `credentials`, here.
  const script = (services.credentials!.command as string[])[0]!
    .replaceAll("/app/cli/bin/warren", warrenBin)
    .replaceAll("/credentials", credentials)
    .replaceAll("$$", "$");
  for (const _ of ["first", "kept"]) {
    const { code, stderr } = await run(["/bin/sh", "-ec", script], { env: { ...env, CELL: "local" } });
    expect([code, stderr]).toEqual([0, ""]);
  }
}, 120_000);

afterAll(() => rm(credentials, { recursive: true, force: true }));

const mounts = (service: Service) => (service.volumes ?? []).map((volume) => volume.split(":"));

test.skipIf(Bun.which("docker-compose") === null)(
  "docker-compose takes it, with and without metrics",
  async () => {
    for (const profile of [[], ["--profile", "metrics"]]) {
      const { code, stderr } = await run(["docker-compose", ...profile, "config"], {
        cwd: deploy,
        env,
      });
      expect([code, stderr]).toEqual([0, ""]);
    }
  },
  30_000,
);

test("all credentials that are mounted are made, and the CA's key is the scheduler's alone", () => {
  const prefix = "./credentials/";
  const mounted = Object.entries(services).flatMap(([name, service]) =>
    mounts(service).flatMap(([from]) =>
      from?.startsWith(prefix) ? [{ name, from: from.slice(prefix.length) }] : [],
    ),
  );
  expect(mounted.length).toBeGreaterThan(7);
  for (const { from } of mounted) expect(existsSync(join(credentials, from, "ca.crt"))).toBe(true);
  const withKey = mounted.filter(({ from }) => existsSync(join(credentials, from, "ca.key")));
  expect(withKey).toEqual([{ name: "scheduler", from: "scheduler-ca" }]);
});

test("the scheduler has the CA where it looks for it, so that join tokens are taken", () => {
  const { command, volumes } = services.scheduler!;
  expect((command as string[]).join(" ")).toContain("--ca /ca");
  expect(volumes).toContain("./credentials/scheduler-ca:/ca:ro");
});

test("metering has the directory of plans", () => {
  expect(mounts(services.metering!)).toContainEqual(["./plans", "/plans", "ro"]);
  expect(services.metering!.environment).toHaveProperty("WARREN_METERING_PLANS");
});

test("Prometheus scrapes each process, by a name that is in its certificate", async () => {
  const targets = scrapes.flatMap(({ static_configs }) => static_configs.flatMap((one) => one.targets));
  const hosts = targets.map((target) => target.split(":")[0]!);
  const served = Object.keys(services).filter((name) => /^(scheduler|agent\d|gateway|metering)$/.test(name));
  expect(hosts.toSorted()).toEqual(served.toSorted());
  for (const host of hosts) {
    const [from] = mounts(services[host]!).find(([, to]) => to === "/credentials")!;
    const certificate = await readFile(
      join(credentials, from!.replace("./credentials/", ""), "tls.crt"),
      "utf8",
    );
    expect(new X509Certificate(certificate).checkHost(host)).toBe(host);
  }
});
