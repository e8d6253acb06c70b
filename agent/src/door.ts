/**
 * A unix socket that one user may connect to, and that can be shut for a while. A connection that is accepted and closed
 * costs the agent as much as it costs the tenant: two that connect in a loop held up the agent's event loop for a second
 * at a time. Where nobody listens the kernel refuses.
 */
import { chmodSync, chownSync, rmSync } from "node:fs";
import type { Logger } from "@warren/common/log";
import type { SocketHandler, UnixSocketListener } from "bun";
import { messageOf } from "./files.ts";

/** What the kernel can hold of a unix socket's path, in bytes. */
export const longestSocketPath = 107;

export interface DoorOptions<Data> {
  /** What a dead agent left there is replaced. */
  readonly path: string;
  /** The one user who may connect; absent: the agent's. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  readonly socket: SocketHandler<Data>;
  readonly log: Logger;
}

export class Door<Data> {
  #listener: UnixSocketListener<Data> | undefined;
  #shut: ReturnType<typeof setTimeout> | undefined;

  /** @throws Error when it cannot be opened */
  constructor(private readonly options: DoorOptions<Data>) {
    const { path } = options;
    const bytes = Buffer.byteLength(path);
    if (bytes > longestSocketPath) {
      throw new Error(
        `a unix socket's path has at most ${longestSocketPath} bytes, and ${path} has ${bytes}: ` +
          "choose a shorter runtime directory",
      );
    }
    this.#open();
  }

  /** Nobody can connect for that long; connections that there are go on. */
  shutFor(ms: number): void {
    if (this.#shut) return;
    this.#listener?.stop(false); // removes the file as well
    this.#listener = undefined;
    this.#shut = setTimeout(() => {
      this.#shut = undefined;
      try {
        this.#open();
      } catch (error) {
        this.options.log.error(
          { why: messageOf(error) },
          "a worker channel cannot be opened again; tried again",
        );
        this.shutFor(ms);
      }
    }, ms);
    this.#shut.unref();
  }

  /** For good; the connections are their owner's to close. */
  close(): void {
    clearTimeout(this.#shut);
    this.#listener?.stop(false);
    this.#listener = undefined;
    rmSync(this.options.path, { force: true });
  }

  #open(): void {
    const { path, owner, socket } = this.options;
    rmSync(path, { force: true });
    this.#listener = Bun.listen<Data>({ unix: path, socket });
    try {
      // A tenant must not keep an agent alive that wants to end.
      this.#listener.unref();
      chmodSync(path, 0o600);
      if (owner) chownSync(path, owner.uid, owner.gid);
    } catch (error) {
      this.close();
      throw error;
    }
  }
}
