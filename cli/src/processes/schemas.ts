/** What each process can be told. The descriptions are what `--help` says. */
import { eventFormats } from "@warren/common/cloudevents";
import { field, listOf } from "@warren/common/config";
import { isKey, keyRule } from "@warren/common/ids";
import { ports, tenantPorts } from "@warren/common/ports";
import { patience } from "@warren/common/rpc/patience";
import { TrustedProxies } from "@warren/gateway/trusted";
import { z } from "zod";
import { rungNames } from "../names.ts";
import { parsePublicUrl } from "../public-url.ts";

const dayMs = 24 * 3_600_000;

const name = () => z.string().refine(isKey, { error: keyRule });

const schedulers = () =>
  field
    .httpsUrls()
    .describe(
      "the scheduler, or several of one cell: https://host:port,https://host:port; the leader is found",
    );

const join = () =>
  field
    .text()
    .optional()
    .describe(
      "join token, or a file that holds one ('warren token create'): with it the credentials are fetched if the directory has none yet",
    );

const everyProcess = {
  credentials: field
    .text()
    .describe("credentials directory of this process (ca.crt, tls.crt, tls.key, tokens.pub)"),
  readyFile: field.text().optional().describe("write who and where it is to this file once it serves"),
  host: field.text().default("127.0.0.1").describe("address to listen on"),
};

/** What `read` makes of a value; what it throws says what is wrong with it. */
function readBy<T, U>(type: z.ZodType<T>, read: (value: T) => U) {
  return type.transform((value, context) => {
    try {
      return read(value);
    } catch (error) {
      context.addIssue({ code: "custom", message: (error as Error).message });
      return z.NEVER;
    }
  });
}

/** "10.0.0.0/8,192.0.2.7" or an array. */
const ranges = () =>
  readBy(z.union([z.array(z.string()), z.string()]), (value) => {
    const list = typeof value === "string" ? listOf(value) : value;
    return new TrustedProxies(list).ranges;
  });

const publicUrl = () => readBy(field.text(), parsePublicUrl);

export const schedulerSchema = z.object({
  ...everyProcess,
  name: name().default("scheduler").describe("its name: stable over restarts"),
  state: field.text().describe("state directory: the embedded store, or its identity on NATS"),
  ca: field
    .text()
    .optional()
    .describe(
      "directory with the cell's CA (ca.crt, ca.key), to let hosts join by token; whoever has it can make any credential of the cell",
    ),
  port: field.port().default(ports.scheduler).describe("port of its API; 0 takes a free one"),
  nats: field
    .text()
    .optional()
    .describe("NATS server to keep state and events on (nats://host:4222), instead of the embedded store"),
  advertise: field
    .httpsUrl()
    .optional()
    .describe(
      "https://host:port where agents, gateways and clients reach it, told by those that follow (default: where it listens; with --host 0.0.0.0 the host's name)",
    ),
  takeoverAfter: field
    .duration()
    .default(20_000)
    .describe(
      "on NATS: take the lead when the leader was not heard of for so long; it stops by itself after three quarters of that; the same for all schedulers",
    ),
  cell: name().default("local").describe("name of the cell"),
  eventFormat: z
    .enum(eventFormats)
    .default("json")
    .describe("how events' payloads are written; readers of this version read both"),
  natsReplicas: z.coerce
    .number()
    .refine((n) => [1, 3, 5].includes(n), { error: "must be 1, 3 or 5" })
    .default(1)
    .describe("on NATS: copies of each stream, at most as many as its cluster has servers"),
  eventsKeep: field
    .duration()
    .refine((ms) => ms >= 60_000, { error: "must be at least 1m" })
    .default(7 * dayMs)
    .describe("events are kept for so long; the ledger has its own memory"),
  eventsMaxCount: field.count().min(1).default(5_000_000).describe("most events kept; the oldest go first"),
  eventsMaxBytes: field
    .size()
    .refine((bytes) => bytes >= 1024 ** 2, { error: "must be at least 1MiB" })
    .default(8 * 1024 ** 3)
    .describe("most bytes of events kept; NATS sets them aside at once"),
  duplicateWindow: field
    .duration()
    .refine((ms) => ms >= 60_000, { error: "must be at least 1m" })
    .default(5 * 60_000)
    .describe("on NATS: a repeated event is recognised for so long, at most --events-keep"),
  maxConcurrent: field.count().default(1000).describe("most live instances in the cluster"),
  idleAfter: field
    .duration()
    .default(1_800_000)
    .describe("stop an instance after so long without a request, where its spec says nothing"),
  freezeAfter: field
    .duration()
    .default(30_000)
    .describe("freeze an instance after so long without a request, where its spec says nothing"),
  pageOutAfter: field
    .duration()
    .default(120_000)
    .describe("page a frozen one out after so long without a request, where its node can"),
  minResidence: field.duration().default(1_000).describe("never evict an instance that was used so recently"),
  reportPeriod: field.duration().default(1_000).describe("how often nodes report"),
  keepReleases: field
    .count()
    .default(5)
    .describe("releases kept per tenant for a rollback, besides those in use; older ones are removed"),
  keepReleaseBytes: field
    .size()
    .default(2 * 1024 ** 3)
    .describe("of one tenant's releases together; those in use are kept beyond it"),
  releaseGrace: field
    .duration()
    .default(3_600_000)
    .describe("a release that came so recently is kept: somebody may be about to apply it"),
  nodeLostAfter: field
    .duration()
    .default(10_000)
    .describe("without a report for so long a node counts as lost"),
  placement: z
    .enum(["pack", "spread"])
    .default("pack")
    .describe("pack fills a node to 80 % of its predicted peak before the next; spread takes the emptiest"),
  overcommitMemory: z.coerce
    .number()
    .positive()
    .default(1)
    .describe("what is predicted to be needed of a node's memory may come to so many times it"),
  rebalance: field.flag().default(false).describe("slowly move idle instances from full nodes to empty ones"),
});

export const agentSchema = z.object({
  ...everyProcess,
  node: name().describe("the node's name"),
  runtime: field
    .text()
    .describe("runtime directory: records of what runs, logs, releases; gone after a reboot"),
  scheduler: schedulers(),
  join: join(),
  port: field.port().default(ports.agent).describe("port of its API; 0 takes a free one"),
  advertise: field
    .text()
    .optional()
    .describe("how the scheduler reaches this agent: https://host:port (default: the address it listens on)"),
  tenantHost: field
    .text()
    .optional()
    .describe(
      "name or address by which gateways on other hosts reach tenants here, who then listen on all addresses: for a network of the cell's own (default: loopback)",
    ),
  memory: field.size().optional().describe("memory for tenants (default: the host's)"),
  cpus: z.coerce.number().positive().optional().describe("cores for tenants (default: the host's)"),
  maxInstances: field.count().default(0).describe("most instances on this node; 0 means no bound of its own"),
  labels: field.pairs().default({}).describe("labels of the node: zone=a,disk=ssd"),
  tenantPorts: z
    .string()
    .regex(/^\d+-\d+$/, { error: "must be a range like 20000-32767" })
    .default(`${tenantPorts.from}-${tenantPorts.to}`)
    .describe("ports for tenants"),
  directories: field
    .flag()
    .default(false)
    .describe("run tenants from directories of this host (development)"),
  onStop: z
    .enum(["keep", "stop"])
    .default("keep")
    .describe("what becomes of tenants when the agent is stopped"),
  isolation: z
    .enum(rungNames)
    .default("auto")
    .describe(
      "highest rung of isolation that is offered: none, user, cgroup or namespace; auto: the highest that works here",
    ),
  uidBase: field
    .count()
    .default(2_000_000_000)
    .describe("tenants' uids: this plus a port of their own; the same for all agents of a host"),
  startsPerSecond: z.coerce
    .number()
    .positive()
    .optional()
    .describe("starts a second, sustained (default: 50 for each core of --cpus, at least 10)"),
  simultaneousStarts: field.count().min(1).default(4).describe("starts at once"),
  maxActive: field
    .count()
    .default(0)
    .describe("most instances that run at once, held when one is thawed; 0 means no bound of its own"),
  cache: field
    .text()
    .optional()
    .describe(
      "directory for unpacked releases (default: in the runtime directory; give a disk where /run is memory)",
    ),
  volumesDir: field
    .text()
    .optional()
    .describe(
      "directory for tenants' volumes, on a disk that outlives a reboot (default: volumes in the runtime directory; below /run that is /var/lib/warren/volumes/NODE)",
    ),
  releaseCache: field
    .size()
    .optional()
    .describe("unpacked releases kept on the node (default: 10GiB); those in use are kept beyond it"),
  logFileSize: field
    .size()
    .optional()
    .describe("one file of an instance's output, before the next one is begun (default: 4MiB)"),
  logFiles: field.count().min(1).default(4).describe("files of an instance's output that are kept"),
});

export const gatewaySchema = z.object({
  ...everyProcess,
  name: name()
    .optional()
    .describe("its name: that of its certificate, which is the default; what it passes is billed under it"),
  scheduler: schedulers(),
  join: join(),
  port: field.port().default(ports.gateway).describe("port of tenants' HTTP; 0 takes a free one"),
  adminPort: field
    .port()
    .default(ports.gatewayAdmin)
    .describe("port of its health and metrics; 0 takes a free one"),
  adminHost: field.text().default("127.0.0.1").describe("address to serve its health and metrics on"),
  domain: field
    .text()
    .optional()
    .describe("tenants are reached as <tenant>.<domain> (default: the host of --public-url, else localhost)"),
  publicUrl: publicUrl()
    .optional()
    .describe(
      "how the world reaches tenants, where a proxy stands in front: https://apps.example.com (each as <tenant>.apps.example.com) or https://example.com/{tenant} (default: from domain and port)",
    ),
  trustForwarded: ranges()
    .prefault("")
    .describe(
      "addresses of proxies of your own, 10.0.0.0/8,192.0.2.7: their X-Forwarded-* and Forwarded are believed, everybody else's replaced",
    ),
  trafficEvery: field
    .duration()
    .default(5_000)
    .describe(
      "how often it reports requests and bytes for billing; what it has not reported is lost if it is killed",
    ),
  hold: field
    .duration()
    .default(patience.hold)
    .describe(
      "how long a request waits for its tenant to start; longer than tenants' readiness timeouts, so that the reason of a failed start is the answer",
    ),
});

export const meteringSchema = z.object({
  ...everyProcess,
  state: field.text().optional().describe("state directory: the ledger, if it is a file"),
  ledger: field
    .text()
    .optional()
    .describe(
      "PostgreSQL that holds the ledger instead: postgres://user:password@host:port/database; arguments are public, so give it by the environment",
    ),
  journal: field.text().optional().describe("the scheduler's state directory, to read the embedded journal"),
  nats: field
    .text()
    .optional()
    .describe("NATS server that carries the events, instead of the embedded journal"),
  consumer: field
    .text()
    .optional()
    .describe("name of its consumer on NATS (default: warren-metering); a second metering needs another"),
  scheduler: field
    .httpsUrls()
    .optional()
    .describe(
      "the cell's schedulers, https://host:port with commas: limits on tenants' use are held and budget alerts are events only with them",
    ),
  plans: field
    .text()
    .optional()
    .describe(
      "file with what tenants pay (.yaml, .toml or .json; docs/billing.md), for invoices and budget alerts; changes are taken up while it runs",
    ),
  foldAfter: field
    .duration()
    .refine((ms) => ms >= 15 * dayMs, {
      error:
        "must be at least 15d, and twice the journal's --events-keep: what may be counted again must not be folded",
    })
    .default(40 * dayMs)
    .describe(
      "an instance without a word for so many days is folded into its tenant's hours; at least twice the scheduler's --events-keep",
    ),
  port: field.port().default(ports.metering).describe("port of its API; 0 takes a free one"),
});
