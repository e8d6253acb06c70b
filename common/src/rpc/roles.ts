/** Roles by the names that certificates, tokens and messages carry. */
import { Role } from "@warren/proto/common";

/** A caller whose credential was believed. */
export interface Principal {
  readonly role: Role;
  /** Process or user name in the credential. */
  readonly name: string;
}

const names: Record<Role, string> = {
  [Role.UNSPECIFIED]: "nobody",
  [Role.CLIENT]: "client",
  [Role.GATEWAY]: "gateway",
  [Role.AGENT]: "agent",
  [Role.METERING]: "metering",
  [Role.SCHEDULER]: "scheduler",
  [Role.METRICS]: "metrics",
};

export function roleName(role: Role): string {
  return names[role] ?? "nobody";
}

/** UNSPECIFIED for a name that is no role. */
export function roleOf(name: string): Role {
  for (const [role, known] of Object.entries(names)) if (known === name) return Number(role);
  return Role.UNSPECIFIED;
}
