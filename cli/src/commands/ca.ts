/** `warren ca init | issue`: who may be what in a cell whose processes run on several hosts. */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { join, resolve } from "node:path";
import { isKey, keyRule } from "@warren/common/ids";
import type { Credentials } from "@warren/common/rpc/credentials";
import { roleName, roleOf } from "@warren/common/rpc/roles";
import {
  hasCellSecrets,
  loopbackHosts,
  openCellSecrets,
  readCellSecrets,
  tokenRoles,
} from "@warren/common/tls/cell";
import { Role } from "@warren/proto/common";
import { type Command, InvalidArgumentError, Option } from "commander";
import { defaultStateDirectory } from "../cluster.ts";
import pc from "../colors.ts";
import { exitCodes, UserError } from "../exit.ts";
import { printJson } from "../output.ts";
import { durationOption } from "../verb.ts";

interface CaOptions {
  readonly dir?: string;
  readonly json?: boolean;
}

const roles = [Role.SCHEDULER, Role.AGENT, Role.GATEWAY, Role.METERING, Role.CLIENT, Role.METRICS].map(
  roleName,
);

export function caCommand(program: Command): void {
  const ca = program
    .command("ca")
    .description("make a cell's CA, and issue credentials for its processes and clients");

  asCaVerb(ca.command("init"))
    .description("make the CA and the token key of a cell; one that is there is kept")
    .option("--cell <name>", "name of the cell (default: local)", keyOption, "local")
    .action(async (options: CaOptions & { cell: string }) => {
      const directory = caDirectory(options);
      const isNew = !hasCellSecrets(directory);
      const { cell } = await openCellSecrets(directory, options.cell);
      if (options.json) printJson({ directory, cell, isNew });
      else say(isNew ? "made" : "kept", `the CA of cell ${cell}`, directory);
    });

  asCaVerb(ca.command("issue"))
    .description("issue a credentials directory: carry it to the host of its process, and nowhere else")
    .argument("<name>", "of the process; an agent's is its node's", keyOption)
    .addOption(new Option("--role <role>", "what it may be").choices(roles).makeOptionMandatory())
    .option(
      "--host <name>",
      "name or address that others reach its server by, besides localhost; may be repeated",
      (value: string, before: string[]) => [...before, value],
      [],
    )
    .option("--renew", "make it anew: the one before stays valid until it expires")
    .option(
      "--ttl <duration>",
      "how long the token of a client or metrics is valid: 90d (default: ten years)",
      durationOption,
    )
    .action(async (name: string, options: IssueVerbOptions) => {
      const role = roleOf(options.role);
      if (options.ttl !== undefined && !tokenRoles.has(role)) {
        const allowed = [...tokenRoles].map(roleName).join(" and ");
        throw new UserError(
          `--ttl goes with the roles ${allowed}: others show a certificate`,
          exitCodes.usage,
        );
      }
      const secrets = await readCellSecrets(caDirectory(options));
      const hosts = [...loopbackHosts, ...options.host];
      const { renew, ttl: tokenTtlMs } = options;
      const { directory, isNew, credentials } = await secrets.credentialsFor(name, role, hosts, {
        renew,
        tokenTtlMs,
      });
      const missing = isNew ? [] : options.host.filter((host) => !names(credentials, host));
      const facts = { directory, cell: secrets.cell, name, role: options.role, isNew };
      if (options.json) printJson({ ...facts, missingHosts: missing });
      else say(isNew ? "issued" : "kept", `${options.role} ${name} of cell ${secrets.cell}`, directory);
      if (missing.length > 0) {
        process.stderr.write(
          `warning: the certificate that was kept does not name ${missing.join(", ")}: issue it anew with --renew\n`,
        );
      }
    });

  for (const command of ca.commands) command.exitOverride();
}

interface IssueVerbOptions extends CaOptions {
  readonly role: string;
  readonly host: string[];
  readonly renew?: boolean;
  readonly ttl?: number;
}

/** Whether the certificate is valid for that name or address. */
function names({ cert }: Credentials, host: string): boolean {
  if (cert === undefined) return true; // a token is for no host
  const certificate = new X509Certificate(cert);
  return (isIP(host) ? certificate.checkIP(host) : certificate.checkHost(host)) !== undefined;
}

function asCaVerb(command: Command): Command {
  return command
    .option(
      "--dir <dir>",
      "directory of the CA; what it issues stands below it (default: credentials/ in the state directory)",
    )
    .option("--json", "print JSON");
}

/** Where the cell's CA is, on a machine that has it. */
export function caDirectory({ dir }: CaOptions): string {
  return dir === undefined ? join(defaultStateDirectory(), "credentials") : resolve(dir);
}

function keyOption(text: string): string {
  if (!isKey(text)) throw new InvalidArgumentError(`It ${keyRule}.`);
  return text;
}

function say(what: string, of: string, directory: string): void {
  process.stdout.write(`${pc.green(what)} ${of}\n${directory}\n`);
}
