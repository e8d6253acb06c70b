/**
 * Ids that have ended: never started again, and answered with how they ended. Bounded; of what is forgotten the newest
 * ULID time is kept, and an unknown id from before it is taken for one that has ended. So "never again" holds for ever,
 * at the price that a start which was on its way longer than the last few thousand ends is refused; the scheduler then
 * places anew.
 */
import { appendFileSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import type { Logger } from "@warren/common/log";
import {
  ExitReason,
  ExitSchema,
  type Instance,
  InstanceRefSchema,
  InstanceSchema,
  InstanceState,
} from "@warren/proto/common";
import { messageOf, readIfThere, writeWhole } from "./files.ts";
import { parseRef, plainRef } from "./records.ts";

interface Line {
  readonly id: string;
  readonly ref?: Record<string, unknown>;
  readonly reason: ExitReason;
  readonly code?: number;
  readonly signal?: string;
  readonly message?: string;
}

export class EndedIds {
  /** In the order in which they ended. */
  readonly #lines = new Map<string, Line>();
  /** The newest ones whole, with their last output, which is not kept on disk. */
  readonly #whole = new Map<string, Instance>();
  #forgottenUntil = "";
  #written = 0;

  constructor(
    private readonly path: string,
    private readonly log: Logger,
    private readonly bound = 10_000,
    private readonly wholeBound = 256,
  ) {
    for (const text of (readIfThere(path) ?? "").split("\n")) {
      if (text === "") continue;
      try {
        const line = JSON.parse(text) as Line & { forgottenUntil?: string };
        if (line.forgottenUntil !== undefined) this.#forgottenUntil = line.forgottenUntil;
        else this.#remember(line);
      } catch {
        // The last line may be half written, if the disk was full: that id is then known by its record or not at all.
      }
    }
    this.#written = Number.POSITIVE_INFINITY; // written anew, if the disk is not full
    this.#write("");
  }

  has(id: string): boolean {
    return this.#lines.has(id) || id.slice(0, ulidTimeLength) <= this.#forgottenUntil;
  }

  /** Whether it is among those that ended lately: unlike {@link has} never a guess by age. */
  isRecent(id: string): boolean {
    return this.#lines.has(id);
  }

  /** How it ended; undefined for an id that has not ended here. */
  get(id: string): Instance | undefined {
    const whole = this.#whole.get(id);
    if (whole) return whole;
    if (!this.has(id)) return undefined;
    const line = this.#lines.get(id);
    return create(InstanceSchema, {
      ref: line?.ref ? parseRef(line.ref) : create(InstanceRefSchema, { id }),
      state: InstanceState.EXITED,
      exit: create(ExitSchema, {
        reason: line?.reason ?? ExitReason.UNKNOWN,
        code: line?.code,
        signal: line?.signal ?? "",
        message: line?.message ?? "this id ended so long ago that the agent has forgotten how",
      }),
    });
  }

  /** Before the record of the instance goes, so that there is no moment in which it could start again. */
  add(instance: Instance): void {
    const { ref, exit } = instance;
    if (!ref || this.#lines.has(ref.id)) return;
    this.#append({
      id: ref.id,
      ref: plainRef(ref),
      reason: exit?.reason ?? ExitReason.UNKNOWN,
      code: exit?.code,
      signal: exit?.signal || undefined,
      message: exit?.message || undefined,
    });
    this.#whole.set(ref.id, instance);
    if (this.#whole.size > this.wholeBound) this.#whole.delete(this.#whole.keys().next().value!);
  }

  /** An id that was never started here and never shall be: its stop came first. */
  addUnknown(id: string, reason: ExitReason): void {
    if (!this.has(id)) this.#append({ id, reason, message: "it was stopped before its start arrived" });
  }

  #append(line: Line): void {
    this.#remember(line);
    this.#write(JSON.stringify(line));
  }

  #write(text: string): void {
    try {
      if (this.#written >= this.bound * 2) {
        this.#compact();
        return;
      }
      appendFileSync(this.path, `${text}\n`, { mode: 0o600 });
      this.#written++;
    } catch (error) {
      // A full disk. This agent remembers it all the same, and the next line brings the whole memory to disk.
      this.log.error({ why: messageOf(error) }, "the ids that ended cannot be written");
      this.#written = Number.POSITIVE_INFINITY;
    }
  }

  #remember(line: Line): void {
    this.#lines.set(line.id, line);
    if (this.#lines.size <= this.bound) return;
    const oldest = this.#lines.keys().next().value!;
    this.#lines.delete(oldest);
    const time = oldest.slice(0, ulidTimeLength);
    if (time > this.#forgottenUntil) this.#forgottenUntil = time;
  }

  #compact(): void {
    const lines = [{ forgottenUntil: this.#forgottenUntil }, ...this.#lines.values()];
    writeWhole(this.path, `${lines.map((line) => JSON.stringify(line)).join("\n")}\n`);
    this.#written = lines.length;
  }
}

/** The first ten characters of a ULID are its time, in an alphabet that sorts. */
const ulidTimeLength = 10;
