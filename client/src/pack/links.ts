/**
 * What becomes of a symbolic link. A release holds nothing outside of itself, so that a link is kept, rewritten to lead to the
 * same place inside, followed (the package of a workspace), or refused. Decisions without I/O.
 */
import { posix } from "node:path";
import { PackError } from "./error.ts";

/** A directory that is packed, and where it stands in the release: the root as "", and packages that were followed. */
export interface Tree {
  /** Its real path. */
  readonly real: string;
  /** Its name in the release. */
  readonly name: string;
}

export interface Link {
  /** Its name in the release. */
  readonly name: string;
  /** As it is written. */
  readonly target: string;
  /** Where it leads in the end; undefined when there is nothing. */
  readonly real: string | undefined;
  /** Real path of the directory it stands in. */
  readonly within: string;
}

export function isBelow(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);
}

/** The name in the release of a real path; undefined outside of all trees. */
export function nameOf(real: string, trees: readonly Tree[]): string | undefined {
  // The innermost: a package that was followed may hold another one.
  const tree = trees
    .filter((one) => isBelow(real, one.real))
    .sort((a, b) => b.real.length - a.real.length)[0];
  return tree && posix.join(tree.name, posix.relative(tree.real, real));
}

/** The text that the link has in the release; undefined when it leads outside. */
export function targetInside(link: Link, trees: readonly Tree[]): string | undefined {
  const { name, target, real, within } = link;
  const here = posix.dirname(name);
  const led = real === undefined ? posix.resolve(within, target) : real;
  const inside = nameOf(led, trees);
  if (inside === undefined) return undefined;
  const byText = posix.join(here, target).replace(/\/$/, "");
  // As it is written it leads there through the same entries, of which some may be links themselves.
  if (!posix.isAbsolute(target) && nameOf(posix.resolve(within, target), trees) === byText) return target;
  return posix.relative(posix.join("/", here), posix.join("/", inside)) || ".";
}

/** Whether the link stands where packages stand: node_modules/NAME or node_modules/@SCOPE/NAME. */
export function isPackageLink(name: string): boolean {
  return /(?:^|\/)node_modules\/(?:@[^/]+\/)?[^/@.][^/]*$/.test(name);
}

/** A package manager's store: what lies in it finds its dependencies beside itself, so that a copy elsewhere would not. */
export function isInStore(real: string): boolean {
  return real.includes("/node_modules/");
}

export function leadsOutside({ name, target, real }: Link, root: string): PackError {
  const what = `${name} is a link to ${target}, which is outside of ${root}`;
  if (real === undefined) {
    return new PackError(`${what}, and there is nothing: remove it, or list it in .warrenignore`);
  }
  if (isInStore(real)) {
    const workspace = real.slice(0, real.indexOf("/node_modules/"));
    const app = isBelow(root, workspace) ? posix.relative(workspace, root) : "";
    const remedy = app
      ? `it is part of the workspace ${workspace}: deploy that directory, and name the app's entry: warren deploy ${workspace} --name NAME -- bun ${app}/ENTRY`
      : "copy what it needs into the directory (bun install --linker hoisted, or --backend copyfile, for node_modules)";
    return new PackError(`${what}: ${remedy}`);
  }
  return new PackError(
    `${what}: copy what it leads to into the directory, or list the link in .warrenignore if the app does not need it`,
  );
}
