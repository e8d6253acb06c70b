/** `warren reload | rollback | releases | explain`: which release a tenant runs, and why it is where it is. */
import type { Warren } from "@warren/client";
import { fromTimestamp, pause } from "@warren/common/time";
import { type Release, ReleaseSchema, RolloutState, type Tenant, TenantSchema } from "@warren/proto/common";
import { ExplainResponseSchema } from "@warren/proto/scheduler";
import type { Command } from "commander";
import pc from "../colors.ts";
import { exitCodes, UserError } from "../exit.ts";
import { shortId } from "../log-lines.ts";
import { age, bytes, messageJson, printJson, printTable, progress } from "../output.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

/** A reload replaces one instance after the other. */
const reloadMs = 300_000;
/** Between two looks at how far it is. */
const lookMs = 50;

export function rolloutCommands(program: Command): void {
  asVerb(program.command("reload"))
    .description("replace a tenant's instances without a gap, each once its successor is ready")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const call = { signal, timeoutMs: options.timeout ?? reloadMs };
        const { instances } = await warren.scheduler.reload({ tenant }, call);
        if (options.json) printJson({ tenant, instances: instances.map(({ id }) => id) });
        else process.stdout.write(reloadedText("reloaded", tenant, instances.length));
      }),
    );

  asVerb(program.command("rollback"))
    .description("give a tenant the release that it had before, and replace its instances without a gap")
    .argument("<tenant>")
    .option("--to <release>", "this release: the beginning of its digest, or its version")
    .action((tenant: string, options: VerbOptions & { to?: string }) =>
      withWarren(options, async (warren, signal) => {
        const release = options.to === undefined ? "" : await digestOf(warren, tenant, options.to);
        const call = { signal, timeoutMs: options.timeout ?? reloadMs };
        const { tenant: now, instances } = await warren.scheduler.rollback({ tenant, release }, call);
        if (options.json) printJson(messageJson(TenantSchema, now!));
        else
          process.stdout.write(reloadedText(`rolled back to ${sourceText(now!)}:`, tenant, instances.length));
      }),
    );

  asVerb(program.command("releases"))
    .description("list releases, newest first; of a tenant also those that it shares with others")
    .argument("[tenant]", "only this one's")
    .action((tenant: string | undefined, options: VerbOptions) =>
      withWarren(options, async (warren) => {
        const { releases, serving } = await warren.scheduler.listReleases({ tenant });
        if (options.json) {
          for (const release of releases) {
            const json = messageJson(ReleaseSchema, release) as object;
            printJson(tenant === undefined ? json : { ...json, serving: release.digest === serving });
          }
          return;
        }
        const now = Date.now();
        printTable(
          ["TENANT", "RELEASE", "VERSION", "SIZE", "AGE"],
          releases.map((release) => [
            release.tenant,
            `${shortDigest(release.digest)}${release.digest === serving ? " (serving)" : ""}`,
            release.version || "-",
            bytes(Number(release.sizeBytes)),
            age(Math.max(0, now - fromTimestamp(release.createdAt, now))),
          ]),
        );
      }),
    );

  asVerb(program.command("explain").alias("status"))
    .description("why a tenant is where it is, or nowhere")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren) => {
        const answer = await warren.scheduler.explain({ tenant });
        if (options.json) printJson(messageJson(ExplainResponseSchema, answer));
        else process.stdout.write(`${answer.text}\n`);
      }),
    );
}

function reloadedText(what: string, tenant: string, instances: number): string {
  const how = instances
    ? `${instances} instance${instances === 1 ? "" : "s"} replaced`
    : "it was not running";
  return `${pc.green(what)} ${tenant} ${pc.dim(how)}\n`;
}

function sourceText({ spec }: Tenant): string {
  return spec?.source.case === "release" ? shortDigest(spec.source.value) : String(spec?.source.value ?? "-");
}

const shortDigest = (digest: string): string => digest.slice("sha256:".length, "sha256:".length + 12);

/** @throws UserError when none or several are meant */
async function digestOf(warren: Warren, tenant: string, meant: string): Promise<string> {
  const { releases } = await warren.scheduler.listReleases({ tenant });
  const matches = (release: Release) =>
    release.version === meant ||
    release.digest.startsWith(meant) ||
    shortDigest(release.digest).startsWith(meant);
  const found = releases.filter(matches);
  if (found.length === 1) return found[0]!.digest;
  throw new UserError(
    found.length === 0
      ? `tenant ${tenant} has no release ${meant} ('warren releases ${tenant}' lists them)`
      : `${meant} means ${found.length} releases of ${tenant}: give more of its digest`,
    exitCodes.notFound,
  );
}

/**
 * Waits until a tenant's newest spec has taken over, or was rolled back; at most as long as a reload may take.
 * @throws UserError when it did not become ready, or not in time
 */
export async function followRollout(
  warren: Warren,
  tenant: Tenant,
  signal: AbortSignal,
  timeoutMs = reloadMs,
): Promise<number> {
  const deadline = performance.now() + timeoutMs;
  let current = tenant;
  for (;;) {
    const { rollout, version } = current;
    if (!rollout || rollout.version !== version) return 0;
    if (rollout.state === RolloutState.DONE) {
      progress("");
      return rollout.replaced;
    }
    if (rollout.state === RolloutState.ROLLED_BACK) {
      progress("");
      const key = tenant.spec?.key;
      const { failedInstance: id, lastOutput } = rollout;
      const more = id ? ` ('warren logs ${key} --instance ${shortId(id)}' shows all of its output)` : "";
      const output = lastOutput.map((line) => `\n  ${line}`).join("");
      const message = `version ${version} did not take over (${rollout.message}): version ${rollout.previousVersion} serves on${more}${output}`;
      throw new UserError(message, exitCodes.refused);
    }
    const doing = rollout.state === RolloutState.ROLLING_BACK ? "rolling back" : "replacing instances";
    progress(`${doing}: ${rollout.replaced} of ${rollout.total}`);
    if (performance.now() >= deadline) {
      progress("");
      const message = `${rollout.replaced} of ${rollout.total} instances are replaced so far; it goes on ('warren explain ${tenant.spec?.key}')`;
      throw new UserError(message, exitCodes.deadline);
    }
    await pause(lookMs, signal);
    signal.throwIfAborted();
    current = (await warren.scheduler.getTenant({ tenant: tenant.spec?.key }, { signal })).tenant!;
  }
}
