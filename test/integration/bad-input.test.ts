/** Wrong things, typed as a user would: each gets one clear message with cause and remedy, and a code. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError, loadCredentials, Warren } from "@warren/client";
import { openCellSecrets } from "@warren/common/tls/cell";
import { Role } from "@warren/proto/common";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

let cell: TestCell;
let directory: string;
const at = (...args: string[]) => [...args, "--state", cell.state];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-bad-"));
  cell = await startCell();
}, 60_000);

afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

describe("deploying", () => {
  test.each(["../x", "A", "a".repeat(64), "", ".", "-a", "a_b"])(
    "the name %j is refused with the rule",
    async (name) => {
      const app = await writeApp(directory, "app", "hello");
      const { code, stderr } = await cli(at("deploy", app, `--name=${name}`));
      expect(stderr).toContain("must be a DNS label");
      expect(code).toBe(2);
    },
  );

  test("a directory that does not exist", async () => {
    const { code, stderr } = await cli(at("deploy", join(directory, "nowhere")));
    expect(stderr).toBe(`error: ${join(directory, "nowhere")} does not exist\n`);
    expect(code).toBe(3);
  });

  test("a file instead of a directory", async () => {
    const file = join(directory, "file");
    await writeFile(file, "");
    const { code, stderr } = await cli(at("deploy", file));
    expect(stderr).toContain("is not a directory");
    expect(code).toBe(2);
  });

  test("a field of package.json#warren that is none", async () => {
    const app = await writeApp(directory, "odd", "hello", { readyness: {} });
    const { code, stderr } = await cli(at("deploy", app));
    expect(stderr).toContain("package.json#warren");
    expect(stderr).toContain("readyness");
    expect(code).toBe(2);
  });

  test("an environment variable whose name is reserved", async () => {
    const app = await writeApp(directory, "reserved", "hello");
    const { code, stderr } = await cli(at("deploy", app, "--env", "WARREN_NODE=n9"));
    expect(stderr).toContain("env: WARREN_NODE: names that begin with WARREN_ are reserved");
    expect(code).toBe(2);
  });

  test("a link that leaves the directory", async () => {
    const app = await writeApp(directory, "leaky", "hello");
    await cp("/etc/hostname", join(app, "fine"));
    await Bun.$`ln -sf /etc/passwd ${join(app, "passwd")}`.quiet();
    const { code, stderr } = await cli(at("deploy", app));
    expect(stderr).toContain("passwd is a link to /etc/passwd, which is outside");
    expect(code).toBe(2);
  });
});

describe("wishes that cannot be are refused by their field, not forgotten", () => {
  test.each([
    [{ instances: { min: 3, max: 2 } }, "instances.max must not be below instances.min"],
    [{ instances: { min: 100_000 } }, "instances.min"],
    [{ instances: { min: 900 } }, "spec.instances: it asks for 900, and the whole cluster may have"],
    [{ priority: 101 }, "priority"],
    [{ instances: { max: 2, sharePort: true } }, "spec.instances.share_port: the scheduler cannot drain"],
    [{ idle: { freezeAfter: "60s", pageOutAfter: "30s" } }, "page_out_after must not be below freeze_after"],
    [{ idle: { warm: [{ from: "25:00", until: "18:00" }] } }, "idle.warm"],
    [
      { idle: { warm: [{ from: "08:00", until: "18:00", timeZone: "Middle/Earth" }] } },
      "there is no time zone Middle/Earth",
    ],
  ])("%j", async (wish, message) => {
    const { code, stderr } = await cli(at("deploy", await writeApp(directory, "eager", "hello", wish)));
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});

describe("limits and liveness", () => {
  const wrong = async (...flags: string[]) =>
    cli(at("deploy", await writeApp(directory, "bounded", "hello"), ...flags));

  test.each([
    [["--memory", "lots"], "It must be a size like 256m"],
    [["--cpu", "half"], "It must be cores like 0.5, or 500m"],
    [["--isolation", "vm"], "Allowed choices are auto, none, user, cgroup, namespace"],
    [["--cpu", "5m"], "must be 0 or at least 10"],
    [["--live", "healthz"], "path"],
    [["--live-interval", "1s"], "give a path to probe, a heartbeat interval, or both"],
    [["--ready", "/", "--ready-kind", "none"], "path and status go with READINESS_KIND_PORT only"],
  ])("%j", async (flags, message) => {
    const { code, stderr } = await wrong(...flags);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});

describe("apps that do not start", () => {
  const failing = async (name: string, source: Parameters<typeof writeApp>[2], ...flags: string[]) => {
    const deployed = await cli(at("deploy", await writeApp(directory, name, source), ...flags));
    expect(deployed.stderr).toBe("");
    return cli(at("ensure", name));
  };

  test("one that exits at once: its code and its last words", async () => {
    const { code, stderr } = await failing("exits", "exitsAtOnce");
    expect(stderr).toContain("crashed with code 3");
    expect(stderr).toContain("I am not in the mood");
    expect(code).toBe(4);
  });

  test("one that never listens: by when it should have", async () => {
    const { code, stderr } = await failing("deaf", "neverListens", "--ready-timeout", "1s");
    expect(stderr).toContain("readiness-timeout");
    expect(stderr).toContain("thinking");
    expect(code).toBe(4);
  });

  test("one that answers 500 to its readiness path: the path and the status", async () => {
    const { code, stderr } = await failing(
      "sick",
      "notHealthy",
      "--ready",
      "/healthz",
      "--ready-timeout",
      "1s",
    );
    expect(stderr).toContain("readiness-timeout");
    expect(stderr).toMatch(/500.*\/healthz|\/healthz.*500/);
    expect(code).toBe(4);
  });

  test("over HTTP they answer 502 or 503 as JSON, without the tenant's output", async () => {
    const response = await cell.get("exits");
    expect([502, 503]).toContain(response.status);
    expect(await response.text()).not.toContain("mood");
  });

  test("a directory that no node has", async () => {
    await cell.warren.apply({ key: "elsewhere", source: { case: "directory", value: "/nowhere/at/all" } });
    const { code, stderr } = await cli(at("ensure", "elsewhere"));
    expect(stderr).toContain("/nowhere/at/all");
    expect(code).toBe(4);
  });
});

describe("the command line", () => {
  test("an unknown flag, with a hint", async () => {
    const { code, stderr } = await cli(at("ps", "--jsno"));
    expect(stderr).toContain("unknown option '--jsno'");
    expect(stderr).toContain("--json");
    expect(code).toBe(2);
  });

  test("no cell here", async () => {
    const { code, stderr } = await cli(["ps", "--state", join(directory, "empty")]);
    expect(stderr).toContain("start one with 'warren up'");
    expect(code).toBe(5);
  });

  test("an unknown tenant", async () => {
    const { code, stderr } = await cli(at("ensure", "nobody"));
    expect(stderr).toContain("no tenant nobody");
    expect(code).toBe(3);
  });

  test("a tenant that nobody can be called", async () => {
    const { code, stderr } = await cli(at("stop", "../x"));
    expect(stderr).toContain("must be a DNS label");
    expect(code).toBe(2);
  });
});

describe("processes", () => {
  const own = async () => {
    const state = await mkdtemp(join(directory, "up-"));
    return [
      "up",
      "--state",
      state,
      "--scheduler-port",
      "0",
      "--metering-port",
      "0",
      "--gateway-admin-port",
      "0",
    ];
  };

  test("a port already taken is named, with the remedy, and nothing is left running", async () => {
    const { port } = new URL(cell.cell.cluster.gateway);
    const { code, stderr } = await cli([...(await own()), "--port", port]);
    expect(stderr).toContain(`port ${port}`);
    expect(stderr).toContain("taken");
    expect(code).toBe(1);
  });

  test("a NATS that is down at start is named, with the remedy", async () => {
    const { code, stderr } = await cli([...(await own()), "--port", "0", "--nats", "nats://127.0.0.1:1"]);
    expect(stderr).toContain("127.0.0.1:1");
    expect(code).toBe(1);
  }, 30_000);

  test("a scheduler that is not there: its URL", async () => {
    const credentials = cell.cell.cluster.credentials;
    const env = { WARREN_URL: "https://127.0.0.1:1", WARREN_CREDENTIALS: credentials };
    const { code, stderr } = await cli(["ps"], { env });
    expect(stderr).toContain("https://127.0.0.1:1 cannot be reached");
    expect(code).toBe(5);
  });

  test("rule 10: a wrong token", async () => {
    const other = await openCellSecrets(join(directory, "other-cell"), "other");
    const { credentials } = await other.credentialsFor("client", Role.CLIENT);
    const good = loadCredentials(cell.cell.cluster.credentials);
    using warren = new Warren({
      url: cell.cell.cluster.scheduler,
      credentials: { ca: good.ca, token: credentials.token },
    });
    const error = ConnectError.from(await warren.scheduler.listNodes({}).catch((e: unknown) => e));
    expect(error.code).toBe(Code.Unauthenticated);
    expect(error.rawMessage).toContain("the bearer token is not one of this cell");
  });

  test("a foreign certificate", async () => {
    const other = await openCellSecrets(join(directory, "other-cell"), "other");
    const { directory: credentials } = await other.credentialsFor("client", Role.CLIENT);
    const env = { WARREN_URL: cell.cell.cluster.scheduler, WARREN_CREDENTIALS: credentials };
    const { code, stderr } = await cli(["nodes"], { env });
    expect(stderr).toContain("CA did not sign");
    expect(code).toBe(5);
  });

  test("an agent with another node's credentials is refused, and says so", async () => {
    const secrets = await openCellSecrets(join(cell.state, "credentials"), "local");
    const { directory: credentials } = await secrets.credentialsFor("n7", Role.AGENT);
    const { stderr } = await cli(
      [
        "agent",
        "--node",
        "n8",
        "--runtime",
        join(directory, "n8"),
        "--scheduler",
        cell.cell.cluster.scheduler,
        "--port",
        "0",
        "--credentials",
        credentials,
      ],
      { deadlineMs: 8_000, env: { WARREN_LOG: "info" } },
    );
    expect(stderr).toContain("this credential is for node n7, not for n8");
  });
});
