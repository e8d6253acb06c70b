/** What makes a directory big, for the message that it is too big. */

export interface Size {
  bytes: number;
  entries: number;
}

/** Names that are told. */
const shown = 5;

/**
 * The part of the app that an entry is counted to: a package in node_modules, a file or directory up to two levels deep
 * elsewhere. Deeper says too little, "node_modules" alone nothing.
 */
export function partOf(name: string): string {
  const parts = name.split("/");
  const at = parts.indexOf("node_modules");
  if (at < 0) return parts.slice(0, 2).join("/");
  const first = parts[at + 1] ?? "";
  // Scopes and the stores of package managers (.bun, .pnpm) hold packages; .cache and the like are one thing.
  const deeper = first.startsWith("@") || first === ".bun" || first === ".pnpm" ? 3 : 2;
  return parts.slice(0, at + deeper).join("/");
}

export class Sizes {
  readonly total: Size = { bytes: 0, entries: 0 };
  readonly #parts = new Map<string, Size>();

  add(name: string, bytes: number): void {
    const part = partOf(name);
    const size = this.#parts.get(part) ?? { bytes: 0, entries: 0 };
    this.#parts.set(part, size);
    for (const one of [size, this.total]) {
      one.bytes += bytes;
      one.entries++;
    }
  }

  /** "node_modules/next 120 MiB, data.db 90 MiB": the largest, or those with the most entries. */
  largest(by: keyof Size): string {
    return [...this.#parts]
      .sort(([, a], [, b]) => b[by] - a[by])
      .slice(0, shown)
      .map(([name, size]) => `${name} ${by === "bytes" ? human(size.bytes) : size.entries}`)
      .join(", ");
  }
}

export function human(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
