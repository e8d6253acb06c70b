/** The shipped compose file on a site: the same commands in the same layout, from images that need no registry. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { type Ran, run, warrenBin } from "../cli.ts";
import type { Container } from "./docker.ts";
import { images, imageVolumes, importImages } from "./image.ts";
import type { Site } from "./site.ts";

const file = join(import.meta.dir, "..", "..", "..", "deploy", "docker-compose.yml");
const agents = ["agent1", "agent2", "agent3"] as const;
/** Services that run to the end of time; `credentials` runs to its own. */
const lasting = ["nats", "scheduler", ...agents, "gateway", "metering"] as const;
const upMs = 90_000;
const healthyMs = 60_000;

export class ComposedCell {
  readonly #site: Site;
  readonly #project: string;

  private constructor(site: Site) {
    this.#site = site;
    this.#project = join(site.directory, "project");
  }

  /** @throws Error with what compose, or the containers that are not healthy, said */
  static async up(site: Site): Promise<ComposedCell> {
    const cell = new ComposedCell(site);
    await importImages(site.docker);
    mkdirSync(cell.#project);
    writeFileSync(join(cell.#project, "override.yml"), JSON.stringify(override()));
    const { code, stdout, stderr } = await cell.compose("up", "-d", "--no-build");
    if (code !== 0) throw new Error(`docker-compose up: ${code}\n${stdout}${stderr}\n${await cell.words()}`);
    await waitUntil(async () => (await cell.#unhealthy()).length === 0 || undefined, {
      deadlineMs: healthyMs,
      what: "all containers to be healthy",
    }).catch(async (error: Error) => {
      const who = (await cell.#unhealthy()).map(({ service, status }) => `${service}: ${status}`);
      throw new Error(`${error.message}: ${who.join(", ")}\n${await cell.words()}`);
    });
    return cell;
  }

  compose(...args: string[]): Promise<Ran> {
    const { directory, dockerHost } = this.#site;
    const command = [
      "docker-compose",
      "--project-name=warren",
      `--project-directory=${this.#project}`,
      `--file=${file}`,
      `--file=${join(this.#project, "override.yml")}`,
      ...args,
    ];
    return run(command, {
      env: {
        PATH: process.env.PATH ?? "",
        HOME: directory,
        DOCKER_HOST: dockerHost,
        WARREN_IMAGE: images.warren,
        NATS_IMAGE: images.nats,
        WARREN_HEALTH_INTERVAL: "2s",
      },
      deadlineMs: upMs,
    });
  }

  /** A verb of the CLI, as an operator runs it on the machine of the compose file. */
  async warren(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await run(this.#site.inside([warrenBin, ...args]), {
      env: {
        PATH: process.env.PATH ?? "",
        HOME: this.#site.directory,
        WARREN_URL: "https://127.0.0.1:7420",
        WARREN_METERING_URL: "https://127.0.0.1:7422",
        WARREN_CREDENTIALS: join(this.#project, "credentials", "client"),
      },
      deadlineMs: 60_000,
    });
    if (code !== 0) throw new Error(`warren ${args.join(" ")}: ${code}\n${stdout}${stderr}`);
    return stdout;
  }

  /** The lines that a verb prints with --json. */
  async warrenJson<T>(...args: string[]): Promise<T[]> {
    const text = await this.warren(...args, "--json");
    return text
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as T);
  }

  /** A request through the gateway's published port. */
  async get(tenant: string, deadlineMs: number): Promise<{ status: number; body: string }> {
    const url = `http://${tenant}.localhost:8080/`;
    const { stdout } = await run(
      this.#site.inside(["curl", "-sS", "-m", `${deadlineMs / 1000}`, "-w", "\n%{http_code}", url]),
      { env: { PATH: process.env.PATH ?? "" }, deadlineMs: deadlineMs + 5_000 },
    );
    const at = stdout.lastIndexOf("\n");
    return { status: Number(stdout.slice(at + 1)), body: stdout.slice(0, at) };
  }

  async container(service: string): Promise<Container> {
    const found = (await this.#site.docker.containers()).find((one) => one.service === service);
    if (!found) throw new Error(`no container of ${service}`);
    return found;
  }

  /** Nodes, instances and what happened: for a test that failed. */
  async picture(): Promise<string> {
    const shown = [["nodes"], ["ps"], ["events"]].map((verb) =>
      this.warren(...verb).catch((error: Error) => error.message),
    );
    return (await Promise.all(shown)).join("\n");
  }

  /** What the containers said last. */
  async words(): Promise<string> {
    return (await this.compose("logs", "--no-color", "--tail=15")).stdout;
  }

  async #unhealthy(): Promise<Container[]> {
    const containers = await this.#site.docker.containers();
    return lasting.flatMap((service) => {
      const found = containers.find((one) => one.service === service);
      if (found?.status.includes("(healthy)")) return [];
      return [found ?? { id: "", service, state: "absent", status: "absent" }];
    });
  }
}

function override() {
  const services: Record<string, object> = {};
  for (const service of ["credentials", ...lasting]) services[service] = { volumes: imageVolumes };
  // Tenants are packed: so few fit on a host that one is not enough for all, and that two are.
  for (const service of agents)
    services[service] = { volumes: imageVolumes, environment: { WARREN_AGENT_MAX_INSTANCES: "5" } };
  services.nats = {
    volumes: imageVolumes,
    // The host's curl: its wget, if it has one, is no part of what is tested.
    healthcheck: { test: ["CMD", "curl", "-fsS", "http://127.0.0.1:8222/healthz"] },
  };
  return { services };
}
