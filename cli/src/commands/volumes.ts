/** `warren volumes [ls] | rm | backup | restore`: files of tenants that stay. */
import { fromTimestamp } from "@warren/common/time";
import { type Backup, BackupSchema } from "@warren/proto/common";
import { type VolumeInfo, VolumeInfoSchema } from "@warren/proto/scheduler";
import type { Command } from "commander";
import pc from "picocolors";
import { UserError } from "../exit.ts";
import { age, bytes, messageJson, printJson, printTable } from "../output.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

/** All of a volume goes through the scheduler. */
const backupMs = 900_000;

export function volumeCommand(program: Command): void {
  const volumes = program
    .command("volumes")
    .description("list, remove, back up and restore tenants' volumes: files that stay");

  asVerb(volumes.command("ls", { isDefault: true }))
    .description("list volumes: where they lie, what they hold, when they were backed up")
    .argument("[tenant]", "only this one's")
    .action((tenant: string | undefined, options: VerbOptions) =>
      withWarren(options, async (warren) => {
        const { volumes: found } = await warren.scheduler.listVolumes({ tenant });
        if (options.json) for (const volume of found) printJson(messageJson(VolumeInfoSchema, volume));
        else if (found.length === 0)
          process.stdout.write(`${tenant ? `${tenant} has no volumes` : "no volumes"}\n`);
        else
          printTable(
            head,
            found.map((volume) => row(volume, Date.now())),
          );
        for (const { volume, backupError } of options.json ? [] : found) {
          if (backupError)
            process.stderr.write(`${pc.yellow("!")} ${volume?.tenant}/${volume?.name}: ${backupError}\n`);
        }
      }),
    );

  asVerb(volumes.command("rm"))
    .description("remove a volume with all that is in it and with its backups; its tenant must be stopped")
    .argument("<tenant>")
    .argument("<name>", "the volume's name")
    .option("--yes", "you know that nothing of it can be brought back")
    .option("--copy <id>", "only this copy, which must be left over ('warren volumes --json' has the ids)")
    .action((tenant: string, name: string, options: VerbOptions & { yes?: boolean; copy?: string }) =>
      withWarren(options, async (warren, signal) => {
        if (!options.yes) {
          throw new UserError(
            `this removes ${options.copy ? `copy ${options.copy} of ` : ""}volume ${name} of ${tenant} with all that is in it${options.copy ? "" : " and its backups"}, for good: add --yes`,
          );
        }
        await warren.scheduler.removeVolume(
          { tenant, name, id: options.copy },
          { signal, timeoutMs: options.timeout ?? 180_000 },
        );
        if (options.json) printJson({ tenant, name, removed: true });
        else process.stdout.write(`${pc.green("removed")} volume ${name} of ${tenant}\n`);
      }),
    );

  asVerb(volumes.command("backup"))
    .description("back a volume up now; the tenant goes on meanwhile")
    .argument("<tenant>")
    .argument("<name>", "the volume's name")
    .action((tenant: string, name: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const { backup, unchanged } = await warren.scheduler.backupVolume(
          { tenant, name },
          { signal, timeoutMs: options.timeout ?? backupMs },
        );
        if (options.json) {
          printJson({ tenant, name, unchanged, backup: backup && messageJson(BackupSchema, backup) });
          return;
        }
        const size = pc.dim(`${backup?.id}, ${bytes(Number(backup?.bytes ?? 0n))} compressed`);
        const said = unchanged ? "has not changed since its last backup, which is good" : "is backed up";
        process.stdout.write(`${pc.green("ok")} volume ${name} of ${tenant} ${said} ${size}\n`);
      }),
    );

  asVerb(volumes.command("restore"))
    .description("bring a backup back at the tenant's next start, in place of what the volume holds now")
    .argument("<tenant>")
    .argument("<name>", "the volume's name")
    .option("--backup <id>", "which one ('warren volumes TENANT --json' lists them; default: the newest)")
    .option("--yes", "you know that what was written since that backup is not in it")
    .action((tenant: string, name: string, options: VerbOptions & { yes?: boolean; backup?: string }) =>
      withWarren(options, async (warren) => {
        if (!options.yes) {
          throw new UserError(
            `what was written to volume ${name} of ${tenant} since its backup will not be in it: add --yes (the copy there is stays on its node, left over)`,
          );
        }
        const { backup } = await warren.scheduler.restoreVolume({ tenant, name, backup: options.backup });
        if (options.json) {
          printJson({ tenant, name, backup: backup && messageJson(BackupSchema, backup) });
          return;
        }
        process.stdout.write(
          `${pc.green("ok")} the next start of ${tenant} brings volume ${name} back as it was ${agoText(backup, Date.now())}\n`,
        );
      }),
    );

  for (const command of volumes.commands) command.exitOverride();
}

const head = ["TENANT", "VOLUME", "NODE", "USED", "SIZE", "PATH", "LAST BACKUP", "STATE"];

function row(info: VolumeInfo, now: number): string[] {
  const { volume, usedBytes, measuredAt, sizeBytes, path } = info;
  return [
    volume?.tenant ?? "",
    volume?.name ?? "",
    volume?.node || "-",
    measuredAt ? bytes(Number(usedBytes)) : "-",
    sizeBytes > 0n ? bytes(Number(sizeBytes)) : "-",
    path || "-",
    volume?.backups[0] ? agoText(volume.backups[0], now) : "-",
    stateText(info, now),
  ];
}

function stateText({ volume, leftOver, inSpec }: VolumeInfo, now: number): string {
  if (leftOver) return `left over (${volume?.id})`;
  if (!volume) return "";
  const coming = volume.backups.find(({ id }) => id === volume.restore);
  if (coming) return `to be restored as it was ${agoText(coming, now)}`;
  if (volume.node === "") return "to begin empty";
  if (!inSpec) return "in no spec";
  if (volume.restoredAsOf)
    return `restored as of ${new Date(fromTimestamp(volume.restoredAsOf, 0)).toISOString()}`;
  return volume.made ? "in use" : "new";
}

/** "12m3s ago" */
export function agoText(backup: Pick<Backup, "asOf"> | undefined, now: number): string {
  return backup?.asOf ? `${age(Math.max(0, now - fromTimestamp(backup.asOf, now)))} ago` : "-";
}
