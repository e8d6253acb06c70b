/**
 * What Bun transpiles is kept from one instance of a tenant to the next: without it the second start of an app costs as
 * much as the first (Hono and zod: 139 ms, with it 87), since each instance has a HOME of its own. One directory per
 * tenant and release, never shared between tenants: what is in it is run. Its name is random and the directory around
 * it cannot be listed, so that only those who are told can find it, and it is sticky, so that no instance can replace
 * what another wrote.
 */
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "@warren/common/log";
import { diskUse } from "./disk.ts";
import { messageOf, removeTree } from "./files.ts";

export interface CacheBounds {
  /** Caches on the node; the least recently used goes. */
  readonly count: number;
  /** Of one cache; one that is larger when its last instance ends goes. */
  readonly bytes: number;
}

const defaultBounds: CacheBounds = { count: 1_000, bytes: 64 * 1024 * 1024 };

export class TranspilerCaches {
  /** Instances that use it, by the name of a cache. */
  readonly #users = new Map<string, Set<string>>();

  constructor(
    private readonly directory: string,
    private readonly log: Logger,
    private readonly bounds: CacheBounds = defaultBounds,
  ) {}

  /**
   * The directory for an instance, held until {@link release}.
   * @param release its digest; "" for a directory of the host
   * @throws Error of the file system
   */
  hold(tenant: string, release: string, instance: string): string {
    const name = nameOf(tenant, release);
    const users = this.#users.get(name);
    if (users) users.add(instance);
    else this.#users.set(name, new Set([instance]));
    const around = join(this.directory, name);
    mkdirSync(around, { recursive: true });
    chmodSync(around, 0o711);
    const now = new Date();
    utimesSync(around, now, now);
    const existing = readdirSync(around)[0];
    const path = join(around, existing ?? randomBytes(16).toString("hex"));
    if (!existing) {
      mkdirSync(path);
      chmodSync(path, 0o1777);
      this.#makeRoom();
    }
    return path;
  }

  /** Notes what an adopted instance uses. */
  adopt(tenant: string, release: string, instance: string): void {
    const name = nameOf(tenant, release);
    this.#users.set(name, (this.#users.get(name) ?? new Set()).add(instance));
  }

  release(tenant: string, release: string, instance: string): void {
    const name = nameOf(tenant, release);
    const users = this.#users.get(name);
    if (!users?.delete(instance) || users.size > 0) return;
    this.#users.delete(name);
    void this.#checkSize(name);
  }

  /** Where the cache of an instance that holds one is. */
  directoryOf(tenant: string, release: string): string {
    return join(this.directory, nameOf(tenant, release));
  }

  async #checkSize(name: string): Promise<void> {
    const { bytes, isMore } = await diskUse(join(this.directory, name));
    if (bytes <= this.bounds.bytes && !isMore) return;
    if (!this.#users.has(name)) this.#remove(name, `it holds ${bytes} bytes${isMore ? " and more" : ""}`);
  }

  #makeRoom(): void {
    const all = readdirSync(this.directory);
    if (all.length <= this.bounds.count) return;
    const oldest = all
      .filter((name) => !this.#users.has(name))
      .map((name) => ({ name, usedAt: statSync(join(this.directory, name)).mtimeMs }))
      .sort((a, b) => a.usedAt - b.usedAt);
    for (const { name } of oldest.slice(0, all.length - this.bounds.count))
      this.#remove(name, "others are newer");
  }

  #remove(name: string, why: string): void {
    try {
      removeTree(join(this.directory, name));
    } catch (error) {
      this.log.warn({ cache: name, why: messageOf(error) }, "a cache could not be removed");
      return;
    }
    this.log.debug({ cache: name, why }, "a cache was removed");
  }
}

function nameOf(tenant: string, release: string): string {
  // A tenant's key has no dot.
  return `${tenant}.${release.replace(/^sha256:/, "").slice(0, 32) || "directory"}`;
}
