/** Strangers before EnrolService, on a real server whose scheduler does not lead. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger } from "@warren/common/log";
import { connectRpc, type RpcConnection } from "@warren/common/rpc/client";
import { Code, ConnectError, detailOf } from "@warren/common/rpc/errors";
import { type RpcServer, serveRpc } from "@warren/common/rpc/server";
import { type CellSecrets, openCellSecrets } from "@warren/common/tls/cell";
import { createJoinToken, joinTokenVerifier } from "@warren/common/tls/join-token";
import { NotLeaderSchema, Role } from "@warren/proto/common";
import { EnrolService } from "@warren/proto/scheduler";
import { Leadership } from "../src/leadership.ts";
import { gated } from "../src/services/enrol-gate.ts";
import { led } from "../src/services/led.ts";

let directory: string;
let cell: CellSecrets;
let server: RpcServer;
let stranger: RpcConnection;
let at = 0;
const outcomes: Record<string, number> = {};

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-gate-"));
  cell = await openCellSecrets(directory, "test");
  const { credentials } = await cell.credentialsFor("s1", Role.SCHEDULER);
  const leadership = new Leadership(() => {});
  leadership.follow({ holder: "s2", address: "https://s2:1", epoch: 2n });
  server = await serveRpc({
    name: "scheduler",
    port: 0,
    credentials,
    log: createLogger({ process: "scheduler" }),
    routes: (router) =>
      router.service(
        EnrolService,
        gated(
          led(EnrolService, leadership, (term) => term.enrolService),
          {
            verify: joinTokenVerifier(credentials.tokenKey, credentials.ca),
            monotonic: () => at,
            onOutcome: (outcome) => {
              outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
            },
          },
        ),
      ),
  });
  stranger = connectRpc({ url: server.url, credentials: { ca: credentials.ca } });
});

afterAll(async () => {
  stranger.close();
  await server.stop(0);
  await rm(directory, { recursive: true, force: true });
});

const enrol = (token: string, name = "n1", signingRequest = "x") =>
  stranger
    .client(EnrolService)
    .enrol({ token, name, signingRequest })
    .then(
      () => {
        throw new Error("it was let in");
      },
      (error: unknown) => ConnectError.from(error),
    );

test("rule 10: only with a token of the cell one learns who leads", async () => {
  const grant = { names: "n1", role: Role.AGENT, hosts: [], uses: 1 };
  const { token } = await createJoinToken({ caCert: cell.ca.cert, tokenKey: cell.tokenKey }, grant, 60_000);
  const without = await enrol("warren-join.a.b.c");
  expect([without.code, detailOf(without, NotLeaderSchema)]).toEqual([Code.Unauthenticated, undefined]);
  const withOne = await enrol(token);
  expect(detailOf(withOne, NotLeaderSchema)?.leaderUrl).toBe("https://s2:1");
});

test("what is malformed is refused by its field, and never looked at", async () => {
  const before = { ...outcomes };
  expect(await enrol("")).toMatchObject({ code: Code.InvalidArgument });
  expect(await enrol("x".repeat(4_097))).toMatchObject({ code: Code.InvalidArgument });
  expect(await enrol("x", "../n1")).toMatchObject({ code: Code.InvalidArgument });
  expect(outcomes).toEqual(before);
});

test("so many are looked at a second, and no more; it is counted", async () => {
  const burst = () => Promise.all(Array.from({ length: 550 }, () => enrol("warren-join.a.b.c")));
  const codes = (await burst()).map(({ code }) => code);
  expect(codes.filter((code) => code === Code.ResourceExhausted).length).toBeGreaterThanOrEqual(50);
  expect(outcomes.resourceexhausted).toBeGreaterThanOrEqual(50);
  at += 1_000;
  expect(await enrol("warren-join.a.b.c")).toMatchObject({ code: Code.Unauthenticated });
}, 30_000);
