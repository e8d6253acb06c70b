/** The file that a stream of an instance is written to: read, and given back to the disk, while the instance writes. */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, rmSync } from "node:fs";
import { isMissing } from "../files.ts";
import { openLibc } from "../host/libc.ts";

const libc =
  process.platform === "linux"
    ? openLibc({ fallocate: { args: ["i32", "i32", "i64", "i64"], returns: "i32" } })
    : undefined;
const keepSizeAndPunchHole = 0x01 | 0x02;

export class RawFile {
  #fd: number | undefined;

  /** @param canPunch whether to try; tests do without */
  constructor(
    readonly path: string,
    private readonly canPunch = true,
  ) {}

  /** Whether it is open, so that nothing here opens it again. */
  get isOpen(): boolean {
    return this.#open() !== undefined;
  }

  /** Its size and what it takes on the disk, in bytes; undefined as long as there is none. */
  stat(): { readonly size: number; readonly allocated: number } | undefined {
    const fd = this.#open();
    if (fd === undefined) return undefined;
    const { size, blocks } = fstatSync(fd);
    return { size, allocated: blocks * 512 };
  }

  /** Fewer bytes than asked for if the file has shrunk. */
  read(offset: number, bytes: number): Buffer {
    const fd = this.#open();
    const buffer = Buffer.allocUnsafe(bytes);
    let filled = 0;
    while (fd !== undefined && filled < bytes) {
      const n = readSync(fd, buffer, filled, bytes - filled, offset + filled);
      if (n === 0) break;
      filled += n;
    }
    return buffer.subarray(0, filled);
  }

  /**
   * Gives the disk back what stands before the offset, without moving anything: what is written meanwhile is safe.
   * @returns false where the file system cannot do it
   */
  punch(end: number): boolean {
    const fd = this.#open();
    if (!this.canPunch || !libc || fd === undefined) return false;
    return end === 0 || libc.fallocate(fd, keepSizeAndPunchHole, 0, end) === 0;
  }

  /** What is written in this very moment is lost. */
  truncate(): void {
    const fd = this.#open();
    if (fd !== undefined) ftruncateSync(fd, 0);
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  remove(): void {
    this.close();
    rmSync(this.path, { force: true });
  }

  #open(): number | undefined {
    if (this.#fd !== undefined) return this.#fd;
    try {
      // A tenant of the agent's own user could put a pipe or a link here: neither is waited for or followed.
      const flags = constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW;
      this.#fd = openSync(this.path, flags);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    return this.#fd;
  }
}
