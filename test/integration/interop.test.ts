/** Clients that are not ours, against a real cell. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { Expose } from "@warren/proto/common";
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

test("a stock @grpc/grpc-js client ensures a tenant and gets its endpoint", async () => {
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
  const client = new Client(
    `localhost:${new URL(cell.cell.cluster.scheduler).port}`,
    grpc.credentials.createSsl(await readFile(ca)),
  );
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  try {
    const call = (tenant: string) =>
      new Promise<EnsureResponse>((resolve, reject) => {
        const ensure = client.ensure as unknown as (
          request: EnsureRequest,
          metadata: grpc.Metadata,
          options: grpc.CallOptions,
          done: (error: grpc.ServiceError | null, response?: EnsureResponse) => void,
        ) => void;
        ensure.call(
          client,
          create(EnsureRequestSchema, { tenant }),
          metadata,
          { deadline: Date.now() + 10_000 },
          (error, response) => (error ? reject(error) : resolve(response!)),
        );
      });
    await answers((await call("direct")).endpoint);
    const error = (await call("../x").catch((e: unknown) => e)) as grpc.ServiceError;
    expect(error.code).toBe(grpc.status.INVALID_ARGUMENT);
  } finally {
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
