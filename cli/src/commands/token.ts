/** `warren token create | use | list | revoke`: letting hosts into a cell. */
import { resolve } from "node:path";
import { listOf } from "@warren/common/config";
import { isKey } from "@warren/common/ids";
import { roleName, roleOf } from "@warren/common/rpc/roles";
import { fromTimestamp } from "@warren/common/time";
import { readCellSecrets } from "@warren/common/tls/cell";
import { enrol, hasCredentials } from "@warren/common/tls/enrol";
import { createJoinToken, joinTokenPrefix, mostUses, readJoinToken } from "@warren/common/tls/join-token";
import { Role } from "@warren/proto/common";
import { type SpentJoinToken, SpentJoinTokenSchema } from "@warren/proto/scheduler";
import { type Command, InvalidArgumentError, Option } from "commander";
import pc, { errorColors } from "../colors.ts";
import { age, messageJson, printJson, printTable } from "../output.ts";
import { joinTokenOf } from "../processes/join.ts";
import { asVerb, countOption, durationOption, type VerbOptions, withWarren } from "../verb.ts";
import { caDirectory } from "./ca.ts";

interface CreateOptions {
  readonly node: string;
  readonly role: string;
  readonly host: string[];
  readonly ttl: number;
  readonly uses: number;
  readonly dir?: string;
  readonly json?: boolean;
}

interface UseOptions {
  readonly name: string;
  readonly role: string;
  readonly scheduler: string;
  readonly credentials: string;
}

export function tokenCommand(program: Command): void {
  const token = program
    .command("token")
    .description(
      "let a host into the cell: it shows a join token, and gets credentials for a key of its own",
    );

  token
    .command("create")
    .description("make a join token, where the cell's CA is; print it alone")
    .requiredOption(
      "--node <name>",
      "name of the node (or gateway) that may join; 'web-*' lets in any new one that begins so",
      namesOption,
    )
    .addOption(roleOption())
    .option(
      "--host <name>",
      "name or address that others reach it by, besides localhost; {node} stands for its name; may be repeated",
      (value: string, before: string[]) => [...before, value],
      [],
    )
    .addOption(
      new Option("--ttl <duration>", "how long it is good for, at most 7d")
        .argParser(durationOption)
        .default(3_600_000, "1h"),
    )
    .option("--uses <n>", `how many hosts it lets in, at most ${mostUses}`, countOption, 1)
    .option("--dir <dir>", "directory of the CA (default: credentials/ in the state directory)")
    .option("--json", "print JSON")
    .action(async (options: CreateOptions) => {
      const { node: names, host: hosts, uses, ttl } = options;
      const { ca, tokenKey } = await readCellSecrets(caDirectory(options));
      const grant = { names, role: roleOf(options.role), hosts, uses };
      const made = await createJoinToken({ caCert: ca.cert, tokenKey }, grant, ttl);
      const expiresAt = new Date(made.expiresAt).toISOString();
      if (options.json) printJson({ ...made, expiresAt, node: names, role: options.role, hosts, uses });
      else process.stdout.write(`${made.token}\n`);
      process.stderr.write(
        errorColors.dim(
          `join token ${made.id} for ${options.role} ${names}, good until ${expiresAt}: a secret\n`,
        ),
      );
    });

  token
    .command("use")
    .description("fetch credentials with a join token, for a process that cannot write them itself (--join)")
    .argument("<token>", "the token, or a file that holds it")
    .requiredOption("--name <name>", "of the node or gateway")
    .addOption(roleOption())
    .requiredOption("--scheduler <urls>", "the cell's schedulers, with commas")
    .requiredOption("--credentials <dir>", "where they are to be; what is there is kept")
    .action(async (join: string, { name, role, scheduler, credentials }: UseOptions) => {
      const directory = resolve(credentials);
      if (hasCredentials(directory)) {
        process.stdout.write(`${pc.green("kept")} ${directory}\n`);
        return;
      }
      const onWaiting = (why: string) => process.stderr.write(`${errorColors.dim(why)}\n`);
      const urls = listOf(scheduler);
      await enrol({ directory, token: joinTokenOf(join), name, role: roleOf(role), urls, onWaiting });
      process.stdout.write(`${pc.green("joined")} ${role} ${name}\n${directory}\n`);
    });

  asVerb(token.command("list"))
    .description("join tokens that were used or revoked; one that nobody has shown yet is not known")
    .action((options: VerbOptions) =>
      withWarren(options, async (warren) => {
        const { tokens } = await warren.enrol.listJoinTokens({});
        if (options.json) for (const one of tokens) printJson(messageJson(SpentJoinTokenSchema, one));
        else printTable(["TOKEN", "STATE", "LET IN"], tokens.map(row));
      }),
    );

  asVerb(token.command("revoke"))
    .description("nobody is let in by it any more; who was, stays")
    .argument("<token>", "the token, or its id")
    .action((text: string, options: VerbOptions) =>
      withWarren(options, async (warren) => {
        const id = text.startsWith(joinTokenPrefix) ? readJoinToken(text).id : text;
        await warren.enrol.revokeJoinToken({ id });
        if (options.json) printJson({ id, revoked: true });
        else process.stdout.write(`${pc.green("revoked")} ${id}\n`);
      }),
    );

  for (const command of token.commands) command.exitOverride();
}

function row({ id, revoked, uses }: SpentJoinToken): string[] {
  const now = Date.now();
  const letIn = uses.map(
    ({ name, role, at }) =>
      `${roleName(role)} ${name}, ${age(Math.max(0, now - fromTimestamp(at, now)))} ago`,
  );
  return [id, revoked ? "revoked" : "used", letIn.join("; ") || "-"];
}

function roleOption(): Option {
  return new Option("--role <role>", "what it may be")
    .choices([Role.AGENT, Role.GATEWAY].map(roleName))
    .default(roleName(Role.AGENT));
}

function namesOption(text: string): string {
  if (!isKey(text) && !/^[a-z0-9][a-z0-9-]{0,61}\*$/.test(text))
    throw new InvalidArgumentError("It must be a name like web-1, or the beginning of names like 'web-*'.");
  return text;
}
