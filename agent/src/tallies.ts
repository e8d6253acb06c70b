/**
 * What was counted of every instance, as of the last observation: one file for all of them, written at each. An agent that
 * is killed so leaves no more than one interval for its successor to guess (rule 8); an instance's own record, which would
 * be a file each, is written only when its state changes.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "@warren/common/log";
import { makePrivateDirectory, messageOf } from "./files.ts";
import type { InstanceRecord } from "./records.ts";
import type { Counters } from "./usage.ts";

interface Counted {
  readonly id: string;
  readonly counters: Counters;
}

/** A new file each time, for the reason that records.ts gives; the one before goes when it is whole. */
export class Tallies {
  /** The newest that is whole; nothing before the first save. */
  #n: number | undefined;
  #wasEmpty = false;
  #failing = false;

  /** @param directory of its own; made at the first save */
  constructor(
    private readonly directory: string,
    private readonly log: Logger,
  ) {}

  /** Never fails: on a full disk the ones before stand. */
  save(instances: readonly Counted[]): void {
    const isEmpty = instances.length === 0;
    if (isEmpty && this.#wasEmpty) return; // a host without tenants writes nothing
    const text = JSON.stringify(Object.fromEntries(instances.map(({ id, counters }) => [id, counters])));
    try {
      const before = this.#n === undefined ? this.#begin() : [this.#n];
      const n = Math.max(0, ...before) + 1;
      writeFileSync(this.#path(n), text, { mode: 0o600 });
      for (const old of before) rmSync(this.#path(old), { force: true });
      this.#n = n;
      this.#wasEmpty = isEmpty;
      this.#failing = false;
    } catch (error) {
      if (!this.#failing)
        this.log.error({ why: messageOf(error) }, "what was counted cannot be kept on disk");
      this.#failing = true;
    }
  }

  /** @returns what the agent before this one left */
  #begin(): number[] {
    makePrivateDirectory(this.directory);
    return this.#numbers();
  }

  /** The records, each with the counters that were read last. */
  brought(records: readonly InstanceRecord[]): InstanceRecord[] {
    const kept = this.#load();
    return records.map((record) => {
      const counters = kept[record.ref.id];
      return counters && counters.wallMs > record.counters.wallMs
        ? { ...record, counters: { ...record.counters, ...counters } }
        : record;
    });
  }

  /** The newest that is whole: the agent may have died while it wrote. */
  #load(): Readonly<Record<string, Counters | undefined>> {
    for (const n of this.#numbers().sort((a, b) => b - a)) {
      try {
        const value: unknown = JSON.parse(readFileSync(this.#path(n), "utf8"));
        if (typeof value === "object" && value !== null) return value as Record<string, Counters>;
      } catch {
        // half written
      }
    }
    return {};
  }

  #numbers(): number[] {
    if (!existsSync(this.directory)) return [];
    return readdirSync(this.directory).map(Number).filter(Number.isSafeInteger);
  }

  #path(n: number): string {
    return join(this.directory, `${n}`);
  }
}
