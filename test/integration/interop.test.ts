/** Clients that are not ours, against a real cell. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { Code, ConnectError, loadCredentials } from "@warren/client";
import { createLogger } from "@warren/common/log";
import { connectRpc } from "@warren/common/rpc/client";
import { serveRpc } from "@warren/common/rpc/server";
import { loopbackHosts, openCellSecrets } from "@warren/common/tls/cell";
import { Expose, Role } from "@warren/proto/common";
import {
  type EnsureRequest,
  EnsureRequestSchema,
  type EnsureResponse,
  EnsureResponseSchema,
  SchedulerService,
} from "@warren/proto/scheduler";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";

let cell: TestCell;
let directory: string;
let token: string;
let ca: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-interop-"));
  cell = await startCell();
  const credentials = cell.cell.cluster.credentials;
  token = await readFile(join(credentials, "token"), "utf8");
  ca = join(credentials, "ca.crt");
  const release = await cell.warren.upload("direct", await writeApp(directory, "direct", "hello"));
  await cell.warren.apply({
    key: "direct",
    expose: Expose.NODE,
    source: { case: "release", value: release.digest },
  });
}, 60_000);

afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

async function answers(endpoint: { host: string; port: number } | undefined): Promise<void> {
  expect(endpoint?.port).toBeGreaterThan(0);
  const text = await (await fetch(`http://${endpoint!.host}:${endpoint!.port}/`)).text();
  expect(text).toStartWith("hello from");
}

/** `ensure` by a stock grpc-js, without any of our generated clients. */
async function grpcEnsure(port: string | number, tenant: string): Promise<EnsureResponse> {
  const Client = grpc.makeGenericClientConstructor(
    {
      ensure: {
        path: `/${SchedulerService.typeName}/Ensure`,
        requestStream: false,
        responseStream: false,
        requestSerialize: (message: EnsureRequest) => Buffer.from(toBinary(EnsureRequestSchema, message)),
        requestDeserialize: (bytes: Buffer) => fromBinary(EnsureRequestSchema, bytes),
        responseSerialize: (message: EnsureResponse) => Buffer.from(toBinary(EnsureResponseSchema, message)),
        responseDeserialize: (bytes: Buffer) => fromBinary(EnsureResponseSchema, bytes),
      },
    },
    "SchedulerService",
  );
  const client = new Client(`localhost:${port}`, grpc.credentials.createSsl(await readFile(ca)));
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const ensure = client.ensure as unknown as (
    request: EnsureRequest,
    metadata: grpc.Metadata,
    options: grpc.CallOptions,
    done: (error: grpc.ServiceError | null, response?: EnsureResponse) => void,
  ) => void;
  try {
    return await new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + 20_000 };
      ensure.call(client, create(EnsureRequestSchema, { tenant }), metadata, options, (error, response) =>
        error ? reject(error) : resolve(response!),
      );
    });
  } finally {
    client.close();
  }
}

const refusalOf = (call: Promise<unknown>): Promise<grpc.ServiceError> =>
  call.then(
    () => Promise.reject(new Error("it was not refused")),
    (error: grpc.ServiceError) => error,
  );

test("a stock @grpc/grpc-js client ensures a tenant and gets its endpoint", async () => {
  const { port } = new URL(cell.cell.cluster.scheduler);
  await answers((await grpcEnsure(port, "direct")).endpoint);
  expect((await refusalOf(grpcEnsure(port, "../x"))).code).toBe(grpc.status.INVALID_ARGUMENT);
});

test("a grpc-js client reads error messages as they were written", async () => {
  const messages = {
    plain: 'no tenant "x": deploy it (see https://example.org/a?b=c#d), or ensure another; 1+1=2',
    odd: "50 % of x%3A\nüber\t日本 🐇",
  };
  const secrets = await openCellSecrets(join(cell.state, "credentials"), "local");
  const { credentials } = await secrets.credentialsFor("errors", Role.SCHEDULER, loopbackHosts);
  await using server = await serveRpc({
    name: "errors",
    port: 0,
    credentials,
    log: createLogger({ process: "errors" }),
    routes: (router) =>
      router.service(SchedulerService, {
        ensure({ tenant }) {
          throw new ConnectError(messages[tenant as keyof typeof messages], Code.NotFound);
        },
      }),
  });
  for (const [tenant, text] of Object.entries(messages)) {
    const { code, details } = await refusalOf(grpcEnsure(server.port, tenant));
    expect({ code, details }).toEqual({ code: grpc.status.NOT_FOUND, details: text });
    // And Connect's own client over gRPC.
    const client = connectRpc({
      url: server.url,
      credentials: loadCredentials(cell.cell.cluster.credentials),
      protocol: "grpc",
    });
    const error = await client
      .client(SchedulerService)
      .ensure({ tenant })
      .catch((e: unknown) => e);
    expect(ConnectError.from(error).rawMessage).toBe(text);
    client.close();
  }
});

/** A unary RPC of the scheduler over Connect with JSON, as a script calls it. */
async function curl(method: string, body: object): Promise<unknown> {
  const child = Bun.spawn(
    [
      "curl",
      "-sS",
      "--max-time",
      "10",
      "--cacert",
      ca,
      "-H",
      `Authorization: Bearer ${token}`,
      "-H",
      "Content-Type: application/json",
      "-d",
      JSON.stringify(body),
      `${cell.cell.cluster.scheduler}/${SchedulerService.typeName}/${method}`,
    ],
    { stdout: "pipe", stderr: "inherit" },
  );
  return new Response(child.stdout).json();
}

test("a curl ensures a tenant over Connect with JSON and gets its endpoint", async () => {
  const answer = (await curl("Ensure", { tenant: "direct" })) as {
    url: string;
    endpoint: { host: string; port: number };
  };
  expect(answer.url).toBe(cell.url("direct", ""));
  await answers(answer.endpoint);
});

test("a field that there is not is refused by its name, and nothing is applied", async () => {
  const answer = await curl("ApplyTenant", { spec: { key: "typo", memory: 3 } });
  expect(answer).toMatchObject({
    code: "invalid_argument",
    message: expect.stringContaining('key "memory" is unknown'),
  });
  expect(await curl("GetTenant", { tenant: "typo" })).toMatchObject({ code: "not_found" });
});

test("buf curl finds the contract by reflection and calls over gRPC", async () => {
  const child = Bun.spawn(
    [
      process.execPath,
      "--bun",
      "x",
      "buf",
      "curl",
      "--protocol",
      "grpc",
      "--cacert",
      ca,
      "--header",
      `Authorization: Bearer ${token}`,
      "--reflect",
      "--reflect-header",
      `Authorization: Bearer ${token}`,
      "--data",
      '{"tenant":"direct"}',
      `${cell.cell.cluster.scheduler.replace("127.0.0.1", "localhost")}/${SchedulerService.typeName}/Ensure`,
    ],
    { cwd: join(import.meta.dir, "../.."), stdout: "pipe", stderr: "pipe" },
  );
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  expect(code, stderr).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ url: cell.url("direct", ""), instance: { tenant: "direct" } });
}, 30_000);
