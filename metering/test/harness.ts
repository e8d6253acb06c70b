/** What the tests of the whole process share: a cell's credentials, both journals, children, calls. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type ConsumerInfo, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { createLogger } from "@warren/common/log";
import { connectRpc } from "@warren/common/rpc/client";
import type { Credentials } from "@warren/common/rpc/credentials";
import { waitUntil } from "@warren/common/time";
import { openCellSecrets } from "@warren/common/tls/cell";
import { Role } from "@warren/proto/common";
import { type GetUsageRequestSchema, type GetUsageResponse, MeteringService } from "@warren/proto/metering";
import { type JournalRecord, openStore, type Store } from "@warren/store";
import { type NatsServer, startNatsServer } from "@warren/store/testing/nats-server";
import { consumerName } from "../src/follower.ts";
import type { JournalLocation } from "../src/source.ts";

export const kinds = ["embedded", "nats"] as const;
export type Kind = (typeof kinds)[number];

export const deadlineMs = 10_000;
export const silent = createLogger({ process: "metering", level: "silent" });

export function temporaryDirectory(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "warren-metering-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

export interface Cell {
  readonly metering: Credentials;
  /** Directory of the same. */
  readonly meteringDirectory: string;
  readonly client: Credentials;
  readonly gateway: Credentials;
}

export async function createCell(directory: string, name = "test"): Promise<Cell> {
  const secrets = await openCellSecrets(directory, name);
  const [metering, client, gateway] = await Promise.all([
    secrets.credentialsFor("metering", Role.METERING),
    secrets.credentialsFor("client", Role.CLIENT),
    secrets.credentialsFor("gateway", Role.GATEWAY),
  ]);
  return {
    metering: metering.credentials,
    meteringDirectory: metering.directory,
    client: client.credentials,
    gateway: gateway.credentials,
  };
}

/** A fresh journal that a scheduler would write. */
export interface Journal extends AsyncDisposable {
  readonly location: JournalLocation;
  readonly server: NatsServer | undefined;
  readonly store: Store;
  append(records: readonly JournalRecord[]): Promise<void>;
}

export async function startJournal(kind: Kind): Promise<Journal> {
  const temporary = temporaryDirectory();
  const directory = join(temporary.path, "scheduler");
  const server = kind === "nats" ? await startNatsServer() : undefined;
  const store = await openStore({ url: server?.url, directory, cell: "test" });
  return {
    location: server ? { natsUrl: server.url } : { journalDirectory: directory },
    server,
    store,
    append: (records) => store.journal.append(records, { deadlineMs }),
    async [Symbol.asyncDispose]() {
      await store.close();
      await server?.[Symbol.asyncDispose]();
      temporary[Symbol.dispose]();
    },
  };
}

/** What NATS says of metering's consumer, once it is as wanted. */
export async function consumerWhen(
  url: string,
  wanted: (info: ConsumerInfo) => boolean,
): Promise<ConsumerInfo> {
  const connection = await connect({ servers: url });
  try {
    const { consumers } = await jetstreamManager(connection);
    return await waitUntil(
      async () => {
        const info = await consumers.info("WARREN_EVENTS", consumerName);
        return wanted(info) ? info : undefined;
      },
      { deadlineMs, what: "metering's consumer as expected" },
    );
  } finally {
    await connection.close();
  }
}

export type UsageRequest = MessageInitShape<typeof GetUsageRequestSchema>;

export async function getUsage(
  url: string,
  credentials: Credentials,
  request: UsageRequest = {},
): Promise<GetUsageResponse> {
  const connection = connectRpc({ url, credentials, deadlineMs });
  try {
    return await connection.client(MeteringService).getUsage(request);
  } finally {
    connection.close();
  }
}

/** The answer once it is as wanted. */
export async function usageWhen(
  url: string,
  credentials: Credentials,
  wanted: (answer: GetUsageResponse) => boolean,
  request: UsageRequest = {},
): Promise<GetUsageResponse> {
  const connection = connectRpc({ url, credentials, deadlineMs });
  try {
    const rpc = connection.client(MeteringService);
    return await waitUntil(
      async () => {
        const answer = await rpc.getUsage(request);
        return wanted(answer) ? answer : undefined;
      },
      { deadlineMs, what: "the usage that is expected" },
    );
  } finally {
    connection.close();
  }
}

export interface Child extends AsyncDisposable {
  readonly exited: Promise<unknown>;
  readonly signal: () => unknown;
  /** Its next line on stdout. */
  line(): Promise<string>;
  kill9(): Promise<void>;
}

/** Runs test/children/<script> with its options as JSON. */
export function startChild(script: string, options: object): Child {
  const child = Bun.spawn(
    [process.execPath, join(import.meta.dir, "children", script), JSON.stringify(options)],
    {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, WARREN_LOG: "error" },
    },
  );
  const atExit = () => child.kill("SIGKILL");
  process.on("exit", atExit);
  const lines: string[] = [];
  const reading = (async () => {
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of child.stdout) {
      const parts = (text + decoder.decode(chunk, { stream: true })).split("\n");
      text = parts.pop() ?? "";
      lines.push(...parts);
    }
  })();
  const kill9 = async () => {
    child.kill("SIGKILL");
    await child.exited;
    await reading;
    process.off("exit", atExit);
  };
  return {
    exited: child.exited,
    signal: () => child.signalCode,
    async line() {
      await waitUntil(() => lines.length > 0, { deadlineMs, what: `a line of ${script}` });
      return lines.shift()!;
    },
    kill9,
    [Symbol.asyncDispose]: kill9,
  };
}
