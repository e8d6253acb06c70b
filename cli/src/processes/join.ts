/** `--join`: a process without credentials fetches them by a join token before it starts. */
import { readFileSync } from "node:fs";
import type { Logger } from "@warren/common/log";
import { enrol, hasCredentials } from "@warren/common/tls/enrol";
import { joinTokenPrefix } from "@warren/common/tls/join-token";
import type { Role } from "@warren/proto/common";
import { UserError } from "../exit.ts";

export interface JoinOptions {
  /** A token, or a file that holds one. */
  readonly join?: string;
  /** Credentials directory. */
  readonly credentials: string;
  readonly name: string;
  readonly role: Role;
  readonly scheduler: readonly string[];
  /** "https://host:port", how others are to reach it, if it was told. */
  readonly advertise?: string;
  readonly log: Logger;
}

/**
 * Nothing without a token, or where there are credentials already: a service may keep its token in its settings.
 * @throws as `enrol`; UserError when the file cannot be read
 */
export async function joinFirst(options: JoinOptions): Promise<void> {
  const { join, credentials: directory, name, role, scheduler: urls, advertise = "", log } = options;
  if (join === undefined || hasCredentials(directory)) return;
  const host = URL.canParse(advertise) ? new URL(advertise).hostname.replace(/^\[|\]$/g, "") : undefined;
  const onWaiting = (why: string): void => log.warn({ why }, "not joined yet; trying on");
  await enrol({ directory, token: joinTokenOf(join), name, role, urls, host, onWaiting });
  log.info(
    { directory, name },
    "joined: the credentials are there, and the join token is not needed any more",
  );
}

/** What a user gave as a join token, itself or a file with it. @throws UserError when there is no such file */
export function joinTokenOf(join: string): string {
  if (join.startsWith(joinTokenPrefix)) return join;
  try {
    return readFileSync(join, "utf8").trim();
  } catch (error) {
    throw new UserError(
      `that is neither a join token (it begins with ${joinTokenPrefix}) nor a file with one: ${(error as Error).message}`,
    );
  }
}
