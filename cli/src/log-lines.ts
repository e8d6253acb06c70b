/** Lines of output as `warren logs` prints them. */
import { fromTimestamp } from "@warren/common/time";
import type { LogLine } from "@warren/proto/scheduler";
import pc from "./colors.ts";
import { escapedButColors } from "./terminal.ts";

export interface LineStyle {
  readonly timestamps: boolean;
  /** As the tenant wrote it, whatever that does to a terminal. */
  readonly raw: boolean;
}

/** Of an id what people see of it, everywhere. */
export const shortId = (id: string): string => id.slice(-6);

/** Turns lines into text. Lines of several instances begin with whose they are. */
export class LinePrinter {
  readonly #seen = new Set<string>();
  /** What stands in the last line of the text, which has no end yet. */
  #open: { readonly instance: string; readonly stream: string; readonly text: string } | undefined;

  constructor(private readonly style: LineStyle) {}

  /** These are read from now on. */
  read(instances: readonly string[]): void {
    for (const id of instances) this.#seen.add(id);
  }

  print(line: LogLine): string {
    this.#seen.add(line.instance);
    const before = this.#open;
    const { instance, stream, text, partial } = line;
    const goesOn =
      before !== undefined &&
      before.instance === instance &&
      before.stream === stream &&
      text.startsWith(before.text);
    const shown = goesOn ? text.slice(before.text.length) : text;
    const start = goesOn ? "" : `${before ? "\n" : ""}${this.#head(line)}`;
    this.#open = partial ? { instance, stream, text } : undefined;
    return `${start}${this.#body(line, shown)}${partial ? "" : "\n"}`;
  }

  /** What ends the text, if its last line has no end. */
  end(): string {
    const end = this.#open ? "\n" : "";
    this.#open = undefined;
    return end;
  }

  #head({ instance, at }: LogLine): string {
    const time = this.style.timestamps ? `${new Date(fromTimestamp(at, 0)).toISOString()} ` : "";
    const head = `${time}${this.#seen.size > 1 ? `${shortId(instance)} | ` : ""}`;
    return head && pc.dim(head);
  }

  #body({ stream, cut }: LogLine, text: string): string {
    const safe = this.style.raw ? text : escapedButColors(text);
    return `${stream === "stderr" && text !== "" ? pc.yellow(safe) : safe}${cut ? pc.dim(" …") : ""}`;
  }
}
