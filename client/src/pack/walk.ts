/** Which entries a directory's release has: everything below it but what is left out, links as they lead inside. */
import type { Dirent } from "node:fs";
import { access, lstat, readdir, readlink, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { PackError, unreadable } from "./error.ts";
import { LeaveOut } from "./left-out.ts";
import {
  isBelow,
  isInStore,
  isPackageLink,
  type Link,
  leadsOutside,
  nameOf,
  type Tree,
  targetInside,
} from "./links.ts";
import { human, Sizes } from "./sizes.ts";

export interface WalkOptions {
  /** Most entries. Default 100,000. */
  readonly maxEntries?: number;
  /** Most bytes of the release, which is a tar. Default 512 MiB. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
}

export type Entry =
  | { readonly kind: "file"; readonly name: string; readonly path: string }
  | { readonly kind: "directory"; readonly name: string }
  | { readonly kind: "link"; readonly name: string; readonly target: string };

/** What a directory's release holds, and what it does not. */
export interface Listing {
  /** The directory's real path. */
  readonly root: string;
  /** By name. */
  readonly entries: readonly Entry[];
  readonly sizes: Sizes;
  readonly maxBytes: number;
  /** Dotenv files that stay here. */
  readonly dotenv: readonly string[];
  /** Package managers' settings that stay here, since they may hold a registry's token. */
  readonly registry: readonly string[];
  /** Files and directories that .warrenignore leaves out. */
  readonly ignored: number;
  /** Links to packages outside, whose files are taken along. */
  readonly followed: readonly { readonly name: string; readonly from: string }[];
}

const defaults = { maxEntries: 100_000, maxBytes: 512 * 1024 * 1024 };
/** What an entry takes: a header, and its content in blocks. The scheduler counts the same. */
const inTar = (bytes: number): number => 512 * (1 + Math.ceil(bytes / 512));
/** The node refuses longer names. */
const longestName = 1024;
/** Over a bound it is still looked at what makes it so big, but not for ever. */
const lookedAt = 10;

/** @throws PackError when the directory is none, holds a link that leaves it, or is over a bound */
export async function list(directory: string, options: WalkOptions = {}): Promise<Listing> {
  return new Walk(await rootOf(directory), directory, { ...defaults, ...options }).run();
}

/** Also of a link: `current -> releases/7` is how many people keep their releases. */
async function rootOf(directory: string): Promise<string> {
  try {
    const root = await realpath(directory);
    if ((await stat(root)).isDirectory()) return root;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT")
      throw new PackError(`${directory} does not exist`);
    throw new PackError(`${directory} cannot be read: ${(error as Error).message}`);
  }
  throw new PackError(`${directory} is not a directory`);
}

class Walk {
  readonly #entries: Entry[] = [];
  readonly #sizes = new Sizes();
  readonly #trees: Tree[];
  readonly #links: Link[] = [];
  readonly #dotenv: string[] = [];
  readonly #registry: string[] = [];
  readonly #followed: { name: string; from: string }[] = [];
  #ignored = 0;
  #leaveOut!: LeaveOut;

  constructor(
    private readonly root: string,
    /** As it was named. */
    private readonly shown: string,
    private readonly options: WalkOptions & typeof defaults,
  ) {
    this.#trees = [{ real: root, name: "" }];
  }

  async run(): Promise<Listing> {
    this.#leaveOut = await LeaveOut.of(this.root);
    await this.#visit(this.root, "", false);
    // Once it is known which packages were followed, since a link may lead to one that was met after it.
    for (const link of this.#links) this.#entries.push(this.#linkEntry(link));
    this.#checkBounds();
    return {
      root: this.root,
      // By the whole name, so that the order does not depend on how directories were walked.
      entries: this.#entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)),
      sizes: this.#sizes,
      maxBytes: this.options.maxBytes,
      dotenv: this.#dotenv.sort(),
      registry: this.#registry.sort(),
      ignored: this.#ignored,
      followed: this.#followed,
    };
  }

  /** @param ofPackage inside of a package that a registry published */
  async #visit(directory: string, prefix: string, ofPackage: boolean): Promise<void> {
    const { signal } = this.options;
    for (const found of await this.#read(directory, prefix)) {
      signal?.throwIfAborted();
      const name = prefix === "" ? found.name : `${prefix}/${found.name}`;
      const why = this.#leaveOut.why(name, found.isDirectory(), ofPackage);
      if (why) {
        if (why === "ignored") this.#ignored++;
        if (why === "dotenv") this.#dotenv.push(name);
        if (why === "registry") this.#registry.push(name);
        continue;
      }
      await this.#take(join(directory, found.name), name, found, ofPackage);
    }
  }

  async #read(directory: string, prefix: string): Promise<Dirent[]> {
    try {
      const found = await readdir(directory, { withFileTypes: true });
      return found.sort((a, b) => (a.name < b.name ? -1 : 1));
    } catch (error) {
      throw unreadable(prefix || this.shown, error);
    }
  }

  async #take(path: string, name: string, found: Dirent, ofPackage: boolean): Promise<void> {
    if (name.length > longestName) {
      throw new PackError(`${name.slice(0, 100)}… has a path of more than ${longestName} characters`);
    }
    if (found.isDirectory()) {
      this.#add({ kind: "directory", name: `${name}/` }, name, 0);
      await this.#visit(path, name, ofPackage || found.name === "node_modules");
    } else if (found.isSymbolicLink()) {
      await this.#takeLink(path, name);
    } else if (found.isFile()) {
      const { size } = await lstat(path).catch((error: unknown) => {
        throw unreadable(name, error);
      });
      this.#add({ kind: "file", name, path }, name, size);
    }
    // Sockets, pipes and devices belong to no release.
  }

  async #takeLink(path: string, name: string): Promise<void> {
    const target = await readlink(path).catch((error: unknown) => {
      throw unreadable(name, error);
    });
    const real = await realpath(path).catch(() => undefined);
    const within = await realpath(join(path, "..")).catch(() => this.root);
    if (real !== undefined && (await this.#isToFollow(name, real))) {
      this.#trees.push({ real, name });
      this.#followed.push({ name, from: real });
      this.#add({ kind: "directory", name: `${name}/` }, name, 0);
      await this.#visit(real, name, false);
      return;
    }
    this.#sizes.add(name, inTar(0));
    this.#links.push({ name, target, real, within });
  }

  /** A package that a workspace, `npm link` or `bun link` put here as a link, and that is not in the release already. */
  async #isToFollow(name: string, real: string): Promise<boolean> {
    if (!isPackageLink(name) || isInStore(real) || nameOf(real, this.#trees) !== undefined) return false;
    if (this.#trees.some((tree) => isBelow(tree.real, real))) return false; // it would hold itself
    return access(join(real, "package.json")).then(
      () => true,
      () => false,
    );
  }

  #linkEntry(link: Link): Entry {
    const target = targetInside(link, this.#trees);
    if (target === undefined) throw leadsOutside(link, this.root);
    return { kind: "link", name: link.name, target };
  }

  #add(entry: Entry, name: string, bytes: number): void {
    const { maxEntries, maxBytes } = this.options;
    this.#sizes.add(name, inTar(bytes));
    const { total } = this.#sizes;
    if (total.entries <= maxEntries && total.bytes <= maxBytes) this.#entries.push(entry);
    else if (total.entries > lookedAt * maxEntries) this.#checkBounds();
  }

  #checkBounds(): void {
    const { maxEntries, maxBytes } = this.options;
    const { total } = this.#sizes;
    if (total.bytes > maxBytes) throw tooBig(this.shown, this.#sizes, maxBytes);
    if (total.entries > maxEntries) {
      throw new PackError(
        `${this.shown} has more than ${maxEntries} files and directories. Most are in: ${this.#sizes.largest("entries")}. ${remedy}`,
      );
    }
  }
}

const remedy =
  "Leave out what the app does not need at run time: list it in .warrenignore (the syntax of .gitignore), and install packages with 'bun install --production'";

export function tooBig(shown: string, sizes: Sizes, maxBytes: number): PackError {
  return new PackError(
    `${shown} is ${human(sizes.total.bytes)}, over ${human(maxBytes)}. Largest in it: ${sizes.largest("bytes")}. ${remedy}`,
  );
}
