/** Which cell the operator's verbs speak to. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import type { Interceptor } from "@connectrpc/connect";
import { loadCredentials, Warren } from "@warren/client";
import { listOf } from "@warren/common/config";
import { z } from "zod";
import { exitCodes, UserError } from "./exit.ts";

/** Where `warren up` keeps everything unless told otherwise. */
export function defaultStateDirectory(): string {
  const base = process.env.XDG_STATE_HOME ?? join(homedir(), ".local", "state");
  return process.env.WARREN_STATE ?? join(base, "warren");
}

/** File in the state directory that says where the cell's processes are. */
export const clusterFile = "cluster.json";

export const clusterSchema = z.object({
  /** One URL, or several with commas. */
  scheduler: z.string(),
  metering: z.string(),
  gateway: z.string(),
  /** Its health and metrics; absent in files of earlier versions. */
  gatewayAdmin: z.string().optional(),
  /** Credentials directory of a client. */
  credentials: z.string(),
});

export type Cluster = z.infer<typeof clusterSchema>;

export interface ClusterOptions {
  /** `--state` */
  readonly state?: string;
  /** `--scheduler` */
  readonly scheduler?: string;
  /** `--metering` */
  readonly metering?: string;
  /** `--credentials` */
  readonly credentials?: string;
  /** `--timeout`, in ms */
  readonly timeout?: number;
  /** Around each call. */
  readonly interceptors?: readonly Interceptor[];
}

/**
 * `--scheduler` with `--credentials`, else WARREN_URL with WARREN_CREDENTIALS (and WARREN_METERING_URL), else what
 * `warren up` wrote in the state directory.
 * @throws UserError saying how to name a cell
 */
export function findCluster(options: ClusterOptions): Cluster {
  const { WARREN_URL, WARREN_CREDENTIALS, WARREN_METERING_URL: metering } = process.env;
  const url = options.scheduler ?? WARREN_URL;
  const credentials = options.credentials ?? WARREN_CREDENTIALS;
  if (url && (options.scheduler !== undefined || options.state === undefined)) {
    if (!credentials) {
      const given = options.scheduler === undefined ? "WARREN_URL is set" : "--scheduler is given";
      throw new UserError(`${given}, but no credentials directory (--credentials or WARREN_CREDENTIALS) is`);
    }
    return { scheduler: url, metering: metering ?? "", gateway: "", credentials };
  }
  const path = join(resolve(options.state ?? defaultStateDirectory()), clusterFile);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    throw new UserError(
      `no cell is known here (${path} is not there): start one with 'warren up', name its state directory with --state, or set WARREN_URL and WARREN_CREDENTIALS`,
      exitCodes.unavailable,
    );
  }
  const parsed = clusterSchema.safeParse(jsonOf(text));
  if (!parsed.success)
    throw new UserError(`${path} is damaged: start 'warren up' again, which writes it anew`);
  return parsed.data;
}

/** Undefined for what is no JSON: the schema refuses that as well. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Deadline of a verb's calls, but for those that wait for a start. */
const verbMs = 30_000;

/** @throws UserError for a URL that is none of ours, and what {@link findCluster} throws */
export function openWarren(options: ClusterOptions): Warren {
  const cluster = findCluster(options);
  const metering = options.metering ?? (cluster.metering || undefined);
  const url = listOf(cluster.scheduler);
  for (const one of [url, metering ?? []].flat()) checkUrl(one);
  return new Warren({
    url,
    meteringUrl: metering,
    credentials: loadCredentials(cluster.credentials),
    deadlineMs: options.timeout ?? verbMs,
    interceptors: options.interceptors,
  });
}

function checkUrl(url: string): void {
  if (URL.canParse(url) && new URL(url).protocol === "https:") return;
  throw new UserError(
    `${JSON.stringify(url)} is no URL of a Warren process: one is like https://127.0.0.1:7420`,
  );
}
