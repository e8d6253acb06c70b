/**
 * What a spec says of files: `writable` and `volumes`. One function says what is wrong with it, for the scheduler that takes
 * specs and for the agent that obeys them. Pure.
 */
import { Availability, Isolation, type TenantSpec, type Volume } from "@warren/proto/common";

export const defaultVolumeBytes = 1024 ** 3;

export interface FilesProblem {
  /** Of the spec: "volumes[0].path". */
  readonly field: string;
  readonly message: string;
}

/** Directories of the sandbox itself, or of the host's programs: nothing of a tenant is mounted there. */
const systemDirectories = [
  "/bin",
  "/dev",
  "/etc",
  "/lib",
  "/lib64",
  "/proc",
  "/run",
  "/sbin",
  "/sys",
  "/tmp",
  "/usr",
];

export const isAbsolute = (path: string): boolean => path.startsWith("/");

/** What a volume may hold, in bytes. */
export const volumeBytes = ({ sizeBytes }: Pick<Volume, "sizeBytes">): number =>
  sizeBytes > 0n ? Number(sizeBytes) : defaultVolumeBytes;

/** Two instances would write to the same files: of a tenant with volumes there is one at most. */
export const hasVolumes = ({ volumes }: Pick<TenantSpec, "volumes">): boolean => volumes.length > 0;

/** A new instance is not started before the one before it is proven gone. */
export const isAtMostOne = (spec: Pick<TenantSpec, "availability" | "volumes">): boolean =>
  spec.availability === Availability.AT_MOST_ONE || hasVolumes(spec);

/** The lowest isolation level that can mount what the spec asks for. */
export function levelOfFiles({ volumes }: TenantSpec): Isolation {
  return volumes.some(({ path }) => isAbsolute(path)) ? Isolation.NAMESPACE : Isolation.NONE;
}

/**
 * @param level that the tenant needs, or runs on
 * @returns what is wrong with it, or undefined
 */
export function filesProblem(spec: TenantSpec, level: Isolation): FilesProblem | undefined {
  return badPath(spec) ?? overlap(spec) ?? badVolumes(spec) ?? directoryProblem(spec, level);
}

interface Named {
  readonly field: string;
  readonly path: string;
}

function pathsOf({ writable, volumes }: TenantSpec): Named[] {
  return [
    ...writable.map((path, i) => ({ field: `writable[${i}]`, path })),
    ...volumes.map(({ path }, i) => ({ field: `volumes[${i}].path`, path })),
  ];
}

function badPath(spec: TenantSpec): FilesProblem | undefined {
  for (const { field, path } of pathsOf(spec)) {
    const mayBeAbsolute = field.startsWith("volumes");
    const segments = (isAbsolute(path) ? path.slice(1) : path).split("/");
    const isPlain = segments.every((part) => part !== "" && part !== "." && part !== "..");
    if (!isPlain || /[\0-\x1f\x7f]/.test(path) || (isAbsolute(path) && !mayBeAbsolute)) {
      const what = mayBeAbsolute
        ? "a path relative to the app's directory, or an absolute one"
        : "a path relative to the app's directory";
      return {
        field,
        message: `${JSON.stringify(path)} must be ${what}, without "." and "..", such as ${mayBeAbsolute ? "data or /data" : ".next/cache"}`,
      };
    }
    const system = systemDirectories.find((one) => path === one || path.startsWith(`${one}/`));
    if (system)
      return {
        field,
        message: `${path} is below ${system}, which is the system's: take another, such as /data`,
      };
  }
  return undefined;
}

/** One inside the other: which of them a file there belongs to could not be told. */
function overlap(spec: TenantSpec): FilesProblem | undefined {
  const all = pathsOf(spec);
  for (const [i, { field, path }] of all.entries()) {
    const other = all.find((one, j) => j < i && (isInside(path, one.path) || isInside(one.path, path)));
    if (other)
      return {
        field,
        message: `${path} and ${other.path} (${other.field}) overlap: give each a place of its own`,
      };
  }
  return undefined;
}

const isInside = (path: string, parent: string): boolean => path === parent || path.startsWith(`${parent}/`);

function badVolumes({ volumes, instances, availability }: TenantSpec): FilesProblem | undefined {
  if (volumes.length === 0) return undefined;
  const twice = volumes.findIndex(({ name }, i) => volumes.findIndex((other) => other.name === name) < i);
  if (twice >= 0)
    return {
      field: `volumes[${twice}].name`,
      message: `there are two volumes named ${volumes[twice]!.name}`,
    };
  const most = Math.max(instances?.min ?? 0, instances?.max ?? 0);
  if (most > 1) {
    return {
      field: "instances",
      message: `it asks for ${most} instances, and a tenant with volumes has one at most, since two would write to the same files: leave instances.min and .max at 1, or take the volumes out`,
    };
  }
  if (availability === Availability.AT_LEAST_ONE) {
    return {
      field: "availability",
      message:
        "a tenant with volumes is at-most-one, since its files lie on one node: leave availability out, or take the volumes out",
    };
  }
  return undefined;
}

/** A directory of the host is no release: nothing may be mounted over it but in a mount namespace of the tenant's own. */
function directoryProblem(
  { source, volumes, writable }: TenantSpec,
  level: Isolation,
): FilesProblem | undefined {
  if (source.case !== "directory" || level >= Isolation.NAMESPACE) return undefined;
  if (volumes.length > 0) {
    return {
      field: "volumes",
      message:
        "a tenant that runs from a directory has volumes at isolation level namespace only: deploy a release, or set isolation to namespace",
    };
  }
  if (writable.length > 0 && level > Isolation.NONE) {
    return {
      field: "writable",
      message:
        "a tenant that runs from a directory has writable paths at the isolation levels none and namespace only: deploy a release, or set isolation to one of these",
    };
  }
  return undefined;
}
