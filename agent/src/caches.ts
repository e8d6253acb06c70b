/**
 * What Bun transpiles is kept from one instance of a tenant to the next: without it the second start of an app costs as
 * much as the first (Hono and zod: 139 ms, with it 87), since each instance has a HOME of its own. One directory per
 * tenant and release. What is in it is run, so that it belongs to one uid at a time: it is handed on once the instance
 * before is gone, and an instance that starts while another has it does without.
 */
import { chmodSync, lchownSync, lstatSync, mkdirSync, readdirSync, statSync, utimesSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "@warren/common/log";
import type { InstanceRef } from "@warren/proto/common";
import { diskUse } from "./disk.ts";
import { messageOf } from "./files.ts";
import type { Identity } from "./sandbox.ts";

type Whose = Pick<InstanceRef, "id" | "tenant" | "release">;

export interface CacheBounds {
  /** Caches on the node; the least recently used goes. */
  readonly count: number;
  /** Of one cache; one that is larger when its last instance ends goes. */
  readonly bytes: number;
  /** In one cache; one with more is not handed on. */
  readonly files: number;
}

const defaultBounds: CacheBounds = { count: 1_000, bytes: 64 * 1024 * 1024, files: 2_000 };

export class TranspilerCaches {
  /** Who has which cache, by its name: one uid, and the instances of it. */
  readonly #held = new Map<string, { readonly uid: number; readonly ids: Set<string> }>();

  constructor(
    private readonly directory: string,
    private readonly log: Logger,
    private readonly bounds: CacheBounds = defaultBounds,
  ) {}

  /**
   * The directory for an instance, held until {@link release}; undefined while another uid has it, or when it cannot be
   * handed on (then there is a new one next time).
   * @param identity undefined for the agent's own
   */
  hold(whose: Whose, identity: Identity | undefined): string | undefined {
    const name = nameOf(whose);
    const uid = identity?.uid ?? process.getuid?.() ?? 0;
    const held = this.#held.get(name);
    if (held && held.uid !== uid) return undefined;
    const path = join(this.directory, name);
    try {
      const isNew = mkdirSync(path, { recursive: true, mode: 0o700 }) !== undefined;
      if (!held) this.#handOver(path, uid, identity?.gid ?? process.getgid?.() ?? 0);
      const now = new Date();
      utimesSync(path, now, now);
      if (isNew) this.#makeRoom();
    } catch (error) {
      if (!held) this.#remove(name, messageOf(error));
      return undefined;
    }
    this.adopt(whose, identity?.uid);
    return path;
  }

  /** Notes what an adopted instance may have. */
  adopt(whose: Whose, uid = process.getuid?.() ?? 0): void {
    const name = nameOf(whose);
    const held = this.#held.get(name);
    if (!held) this.#held.set(name, { uid, ids: new Set([whose.id]) });
    else if (held.uid === uid) held.ids.add(whose.id);
  }

  release(whose: Whose): void {
    const name = nameOf(whose);
    const held = this.#held.get(name);
    if (!held?.ids.delete(whose.id) || held.ids.size > 0) return;
    this.#held.delete(name);
    void this.#checkSize(name);
  }

  /** Where the cache of an instance is, if it has one. */
  directoryOf(whose: Whose): string {
    return join(this.directory, nameOf(whose));
  }

  /**
   * @throws Error when there is anything in it but plain files of the owner before: a link, or a file with a second
   * name elsewhere, must not be given away
   */
  #handOver(path: string, uid: number, gid: number): void {
    const { uid: before } = lstatSync(path);
    const files = readdirSync(path);
    if (files.length > this.bounds.files) throw new Error(`it has ${files.length} files`);
    for (const file of files) {
      const stat = lstatSync(join(path, file));
      if (!stat.isFile() || stat.nlink !== 1 || stat.uid !== before)
        throw new Error("not only plain files are in it");
      lchownSync(join(path, file), uid, gid);
    }
    lchownSync(path, uid, gid);
    chmodSync(path, 0o700);
  }

  async #checkSize(name: string): Promise<void> {
    const { bytes, isMore } = await diskUse(join(this.directory, name));
    if (bytes <= this.bounds.bytes && !isMore) return;
    if (!this.#held.has(name)) this.#remove(name, `it holds ${bytes} bytes${isMore ? " and more" : ""}`);
  }

  #makeRoom(): void {
    const all = readdirSync(this.directory);
    if (all.length <= this.bounds.count) return;
    const oldest = all
      .filter((name) => !this.#held.has(name))
      .map((name) => ({ name, usedAt: statSync(join(this.directory, name)).mtimeMs }))
      .sort((a, b) => a.usedAt - b.usedAt);
    for (const { name } of oldest.slice(0, all.length - this.bounds.count))
      this.#remove(name, "others are newer");
  }

  /** In the file system's own threads: it may hold more than anyone wants to wait for. */
  #remove(name: string, why: string): void {
    this.log.debug({ cache: name, why }, "a cache is removed");
    // Held meanwhile, so that nobody is given what is just going.
    const going = { uid: -1, ids: new Set([""]) };
    this.#held.set(name, going);
    rm(join(this.directory, name), { recursive: true, force: true })
      .catch((error: unknown) =>
        this.log.warn({ cache: name, why: messageOf(error) }, "a cache could not be removed"),
      )
      .finally(() => this.#held.delete(name));
  }
}

function nameOf({ tenant, release }: Whose): string {
  // A tenant's key has no dot.
  return `${tenant}.${release.replace(/^sha256:/, "").slice(0, 32) || "directory"}`;
}
