/**
 * What tenants say must not command the terminal of its reader: a message, a line of output or a file's name may hold
 * sequences that move the cursor, set the title or fill the clipboard. Shown are their codes instead.
 */

/** Controls but newline and tab, and those that turn the direction of text around. */
const controls = /[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;
/** Colours and the like, which change nothing but how text looks. */
const colors = /\x1b\[[0-9;:]*m/g;

const code = (char: string): string => {
  const n = char.charCodeAt(0);
  return n < 0x100 ? `\\x${n.toString(16).padStart(2, "0")}` : `\\u${n.toString(16)}`;
};

export function escaped(text: string): string {
  return text.replace(controls, code);
}

/** Where a line must stay one. */
export function oneLine(text: string): string {
  return escaped(text).replaceAll("\n", "\\n");
}

/** A line of output as a terminal may have it: its colours stay, and end with it. */
export function escapedButColors(line: string): string {
  let shown = "";
  let at = 0;
  for (const { 0: color, index } of line.matchAll(colors)) {
    shown += escaped(line.slice(at, index)) + color;
    at = index + color.length;
  }
  return at === 0 ? escaped(line) : `${shown}${escaped(line.slice(at))}\x1b[0m`;
}

/** JSON escapes some controls only; what it leaves a terminal would obey. */
export function escapedJson(json: string): string {
  return json.replace(controls, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Escapes all texts of a message in place. */
export function escapeAll(value: unknown): void {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return;
  const fields = value as Record<string, unknown>;
  for (const [name, field] of Object.entries(fields)) {
    if (typeof field === "string") fields[name] = escaped(field);
    else escapeAll(field);
  }
}
