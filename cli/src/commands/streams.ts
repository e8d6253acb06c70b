/** `warren logs | events`: what is said and what happens. */
import { fromDuration, fromTimestamp } from "@warren/common/time";
import { type Event, EventSchema, NodeChange, RolloutState, VolumeChange } from "@warren/proto/common";
import { LogLineSchema } from "@warren/proto/scheduler";
import { type Command, InvalidArgumentError } from "commander";
import pc from "picocolors";
import { modeName, reasonName, stateName } from "../names.ts";
import { age, messageJson, printJson } from "../output.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

function tailOption(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 0 || n > 10_000)
    throw new InvalidArgumentError("It must be from 0 to 10000.");
  return n;
}

export function streamCommands(program: Command): void {
  asVerb(program.command("logs"))
    .description("show the output of a tenant's newest instance")
    .argument("<tenant>")
    .option("-f, --follow", "go on with new lines, over restarts too")
    .option("-n, --tail <lines>", "lines of the past", tailOption, 100)
    .action((tenant: string, options: VerbOptions & { follow?: boolean; tail: number }) =>
      withWarren(options, async (warren, signal) => {
        try {
          for await (const line of warren.logs(tenant, {
            tail: options.tail,
            follow: options.follow,
            signal,
          })) {
            if (options.json) printJson(messageJson(LogLineSchema, line));
            else
              process.stdout.write(
                `${line.stream === "stderr" ? pc.yellow(line.text) : line.text}${line.cut ? pc.dim(" …") : ""}\n`,
              );
          }
        } catch (error) {
          if (!signal.aborted) throw error;
        }
      }),
    );

  asVerb(program.command("events"))
    .description("show what has happened; with -f, what happens")
    .argument("[tenant]", "only this one's")
    .option("-f, --follow", "go on with new events")
    .action((tenant: string | undefined, options: VerbOptions & { follow?: boolean }) =>
      withWarren(options, async (warren, signal) => {
        try {
          const after = options.follow ? undefined : 0n;
          for await (const event of warren.events({
            tenant,
            after,
            follow: options.follow ?? false,
            signal,
          })) {
            if (options.json) printJson(messageJson(EventSchema, event));
            else process.stdout.write(`${eventLine(event)}\n`);
          }
        } catch (error) {
          if (!signal.aborted) throw error;
        }
      }),
    );
}

/** An event in one line for a person. */
export function eventLine(event: Event): string {
  const time = new Date(fromTimestamp(event.time, 0)).toISOString().slice(11, 23);
  return `${pc.dim(time)} ${pc.bold((event.tenant || event.source).padEnd(12))} ${what(event.payload)}`;
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
        ? ` ${pc.yellow(reasonName(exit.reason))}${exit.message ? `: ${exit.message}` : ""}`
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
