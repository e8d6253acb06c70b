/** `warren logs | events`: what is said and what happens. */
import type { Warren } from "@warren/client";
import { listOf } from "@warren/common/config";
import { fromDuration, fromTimestamp } from "@warren/common/time";
import {
  type Event,
  EventSchema,
  type Exit,
  NodeChange,
  RolloutState,
  VolumeChange,
} from "@warren/proto/common";
import { LogLineSchema } from "@warren/proto/scheduler";
import { type Command, InvalidArgumentError, Option } from "commander";
import pc from "../colors.ts";
import { LinePrinter } from "../log-lines.ts";
import { momentOption } from "../moments.ts";
import { modeName, reasonName, stateName } from "../names.ts";
import { age, messageJson, printJson } from "../output.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

/** Lines or events of the past. */
const most = 10_000;

function tailOption(text: string): number {
  const n = Number(text);
  if (text.trim() === "" || !Number.isInteger(n) || n < 0 || n > most)
    throw new InvalidArgumentError(`It must be from 0 to ${most}.`);
  return n;
}

const shownTypes = EventSchema.oneofs.find(({ name }) => name === "payload")!.fields.map(({ name }) => name);
/** Counters, every few seconds for each instance: shown when they are asked for. */
const counterTypes = ["usage", "traffic"];

/** "transition,eviction" @throws InvalidArgumentError */
function typesOption(text: string, before: readonly string[] = []): string[] {
  const types = listOf(text);
  const unknown = types.find((type) => !shownTypes.includes(type));
  if (unknown !== undefined || types.length === 0)
    throw new InvalidArgumentError(`It must be of: ${shownTypes.join(", ")}.`);
  return [...before, ...types];
}

const sinceOption = (text: string): Date => new Date(momentOption(text));

interface LogsFlags extends VerbOptions {
  readonly follow?: boolean;
  readonly tail?: number;
  readonly instance?: string;
  readonly previous?: boolean;
  readonly since?: Date;
  readonly timestamps?: boolean;
  readonly raw?: boolean;
}

interface EventsFlags extends VerbOptions {
  readonly follow?: boolean;
  readonly tail?: number;
  readonly since?: Date;
  readonly type?: readonly string[];
}

export function streamCommands(program: Command): void {
  asVerb(program.command("logs"))
    .description("show the output of a tenant's instances, in the order in which it was written")
    .argument("<tenant>")
    .option("-f, --follow", "go on with new lines, over restarts too")
    .option("-n, --tail <lines>", "lines of the past (default: 100; with --since all)", tailOption)
    .option(
      "--instance <id>",
      "only this one's: its id, or the end of it as it is shown; also of one that ended",
    )
    .addOption(
      new Option("--previous", "only of the instance that ended last, and why it did").conflicts("instance"),
    )
    .option(
      "--since <time>",
      "only lines since then: 10m for so long ago, or 2026-11-30T10:00:00Z",
      sinceOption,
    )
    .option("--timestamps", "begin each line with when it was read")
    .option("--raw", "on a terminal, too, as it was written: controls of the terminal are not escaped")
    .action((tenant: string, options: LogsFlags) =>
      withWarren(options, (warren, signal) => showLogs(warren, tenant, options, signal), { exact: true }),
    );

  asVerb(program.command("events"))
    .description("show what has happened; with -f, what happens")
    .argument("[tenant]", "only this one's")
    .option("-f, --follow", "go on with new events")
    .option("-n, --tail <events>", "events of the past (default: 50; with --since all)", tailOption)
    .option(
      "--since <time>",
      "only events since then: 10m for so long ago, or 2026-11-30T10:00:00Z",
      sinceOption,
    )
    .option(
      "--type <types>",
      `only these, with commas: ${shownTypes.join(", ")} (default: all but ${counterTypes.join(" and ")}; with --json all)`,
      typesOption,
    )
    .action((tenant: string | undefined, options: EventsFlags) =>
      withWarren(options, async (warren, signal) => {
        const { follow = false, since, json } = options;
        const types = options.type ?? (json ? [] : shownTypes.filter((type) => !counterTypes.includes(type)));
        const tail = options.tail ?? (since ? most : 50);
        for await (const event of warren.events({ tenant, follow, tail, since, types, signal })) {
          if (json) printJson(messageJson(EventSchema, event));
          else process.stdout.write(`${eventLine(event)}\n`);
        }
      }),
    );
}

async function showLogs(
  warren: Warren,
  tenant: string,
  options: LogsFlags,
  signal: AbortSignal,
): Promise<void> {
  const { follow, instance, previous, since, json, timestamps = false } = options;
  const tail = options.tail ?? (since ? most : 100);
  // To a pipe or a file it goes as it is; a terminal would obey it.
  const printer = new LinePrinter({ timestamps, raw: options.raw ?? !process.stdout.isTTY });
  // A program that follows would have such a line twice.
  const partial = !(json && follow);
  const onInstances = (ids: readonly string[]) => printer.read(ids);
  const lines = warren.logs(tenant, {
    tail,
    follow,
    instance,
    previous,
    since,
    partial,
    signal,
    onInstances,
  });
  try {
    for await (const line of lines) {
      if (json) printJson(messageJson(LogLineSchema, line));
      else process.stdout.write(printer.print(line));
    }
  } finally {
    process.stdout.write(printer.end());
  }
}

/** An event in one line for a person. */
export function eventLine(event: Event): string {
  const time = new Date(fromTimestamp(event.time, 0)).toISOString().slice(11, 23);
  const said = what(event.payload).replaceAll("\n", "\\n"); // a tenant must not write lines of its own here
  return `${pc.dim(time)} ${pc.bold((event.tenant || event.source).padEnd(12))} ${said}`;
}

/** The last line of output of one that failed says more than any code. */
function lastWords({ lastOutput }: Exit): string {
  const line = lastOutput.findLast((text) => text.trim() !== "");
  return line === undefined ? "" : ` ${pc.dim(`it said: ${line.slice(0, 200)}`)}`;
}

function what(payload: Event["payload"]): string {
  switch (payload.case) {
    case "transition": {
      const { instance, from, to, fromMode, toMode, after, exit } = payload.value;
      const short = pc.dim(instance?.id.slice(-6) ?? "");
      const moved =
        from === to ? `${modeName(fromMode)} → ${modeName(toMode)}` : `${stateName(from)} → ${stateName(to)}`;
      const took = after ? pc.dim(` after ${age(fromDuration(after, 0))}`) : "";
      const why = exit
        ? ` ${pc.yellow(reasonName(exit.reason))}${exit.message ? `: ${exit.message}` : ""}${lastWords(exit)}`
        : "";
      return `${short} ${moved}${took}${why} ${pc.dim(`on ${instance?.node}`)}`;
    }
    case "usage": {
      const { instance, usage } = payload.value;
      return pc.dim(
        `${instance?.id.slice(-6)} usage: cpu ${((Number(usage?.cpuUs) || 0) / 1e6).toFixed(3)} s, alive ${age(Number(usage?.wallMs ?? 0n))}`,
      );
    }
    case "placement":
      return `${pc.dim(payload.value.instance?.id.slice(-6) ?? "")} placed on ${payload.value.instance?.node}: ${payload.value.why}`;
    case "eviction":
      return `${pc.dim(payload.value.instance?.id.slice(-6) ?? "")} evicted in favour of ${payload.value.inFavourOf}, idle for ${age(fromDuration(payload.value.idleFor, 0))}`;
    case "backoff":
      return `${pc.yellow("back-off")} for ${age(fromDuration(payload.value.delay, 0))} after ${payload.value.failures} failures`;
    case "node":
      return `node ${payload.value.node} ${NodeChange[payload.value.change]?.toLowerCase()} ${pc.dim(payload.value.message)}`;
    case "release":
      return `release ${payload.value.release.slice(7, 19)} deployed`;
    case "rollout":
      return `rollout of version ${payload.value.rollout?.version} ${RolloutState[payload.value.rollout?.state ?? 0]?.toLowerCase().replace("_", " ")} ${pc.dim(payload.value.rollout?.message ?? "")}`;
    case "traffic":
      return pc.dim(`traffic: ${payload.value.requests} requests, ${payload.value.bytesOut} bytes out`);
    case "storage":
      return pc.dim(
        `volume ${payload.value.name} on ${payload.value.node} holds ${payload.value.usedBytes} bytes`,
      );
    case "volume":
      return `volume ${payload.value.name} ${VolumeChange[payload.value.change]?.toLowerCase().replaceAll("_", " ")}${payload.value.node ? ` on ${payload.value.node}` : ""} ${pc.dim(payload.value.message)}`;
    case "budget":
      return `${pc.yellow("budget")}: ${payload.value.percent} % of it is spent`;
    case "limit":
      return payload.value.reached
        ? `${pc.yellow("limit reached")}: stopped until ${new Date(fromTimestamp(payload.value.until, 0)).toISOString()}`
        : "a limit stands in the way no more";
    default:
      return "an event of a later version";
  }
}
