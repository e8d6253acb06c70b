/** A spec is wrong; the message begins with the path of the field: `limits.memory_bytes: "256q" is not a size …`. */
export class SpecError extends Error {
  override readonly name = "SpecError";
  constructor(
    /** "limits.memory_bytes"; empty for the spec as a whole. */
    readonly field: string,
    problem: string,
  ) {
    super(field ? `${field}: ${problem}` : problem);
  }
}

export const below = (path: string, name: string | number): string => {
  if (typeof name === "number") return `${path}[${name}]`;
  return path ? `${path}.${name}` : name;
};

/** A value as an error shows it, cut where it is long. */
export function shown(value: unknown): string {
  const text = typeof value === "bigint" ? `${value}n` : (JSON.stringify(value) ?? String(value));
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}

/** "; did you mean memory_bytes?", if one of them is nearly that. */
export function meant(wrong: string, names: readonly string[]): string {
  const letters = (name: string) => name.toLowerCase().replaceAll(/[^a-z]/g, "");
  const near = names.find((name) => {
    const [a, b] = [letters(wrong), letters(name)];
    const isPart = Math.min(a.length, b.length) > 2 && (a.startsWith(b) || b.startsWith(a));
    return isPart || isOneOff(a, b);
  });
  return near === undefined ? "" : `; did you mean ${near}?`;
}

/** Whether one letter more, less or other makes one of the other, or two neighbours changed places. */
function isOneOff(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1) return false;
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  const rest = (skipA: number, skipB: number) => a.slice(at + skipA) === b.slice(at + skipB);
  const swapped = a[at] === b[at + 1] && a[at + 1] === b[at] && rest(2, 2);
  return rest(1, 1) || rest(1, 0) || rest(0, 1) || swapped;
}
