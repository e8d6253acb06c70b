/** Plots in the terminal: bars and sparklines of a given width. */
import pc from "./colors.ts";

const eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
const steps = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/** Where numbers are plotted: not where nobody looks, nor where somebody wants it plain. */
export function plotsHere(): boolean {
  return process.stdout.isTTY === true && !process.env.NO_COLOR;
}

/** Columns of the terminal. */
export const terminalWidth = (): number => process.stdout.columns ?? 80;

/**
 * A bar of `value` where `most` fills the width. What is more than nothing is seen.
 * @param width in columns
 */
export function bar(value: bigint, most: bigint, width: number): string {
  if (value <= 0n || most <= 0n || width <= 0) return "";
  const parts = Number((value * BigInt(width) * 8n) / most);
  const shown = Math.max(1, Math.min(width * 8, parts));
  return "█".repeat(Math.floor(shown / 8)) + eighths[shown % 8];
}

/** One column for each value: a blank for none, the highest step for `most`. */
export function sparkline(values: readonly bigint[], most: bigint): string {
  return values
    .map((value) => {
      if (value <= 0n || most <= 0n) return " ";
      return steps[Math.min(steps.length - 1, Number((value * BigInt(steps.length) - 1n) / most))];
    })
    .join("");
}

/** Joins neighbours until there are at most `columns`: each is the sum of its part. */
export function fold(values: readonly bigint[], columns: number): bigint[] {
  if (values.length <= columns) return [...values];
  const folded = Array<bigint>(Math.max(1, columns)).fill(0n);
  for (const [n, value] of values.entries()) {
    const at = Math.floor((n * folded.length) / values.length);
    folded[at] = folded[at]! + value;
  }
  return folded;
}

/** The highest of them; 0 for none. */
export function highest(values: readonly bigint[]): bigint {
  let most = 0n;
  for (const value of values) if (value > most) most = value;
  return most;
}

/** A plot narrower than this says nothing. */
const leastPlot = 8;
const mostPlot = 60;

/**
 * A text with a plot beside each of its lines, in the room that they leave: none where that is too little.
 * @param width columns of the terminal; nothing to plot nothing
 * @param plot of line n, in so many columns; of the first, the plot's title
 */
export function plotBeside(
  text: string,
  width: number | undefined,
  plot: (room: number, n: number) => string,
): string {
  if (width === undefined) return text;
  const lines = text.split("\n");
  const widths = lines.map((line) => Bun.stringWidth(line));
  const taken = Math.max(...widths) + 2;
  const room = Math.min(mostPlot, width - taken);
  if (room < leastPlot) return text;
  return lines
    .map((line, n) => {
      const plotted = line === "" ? "" : plot(room, n).trimEnd();
      if (plotted === "") return line;
      return `${line}${" ".repeat(taken - widths[n]!)}${n === 0 ? pc.dim(plotted) : pc.cyan(plotted)}`;
    })
    .join("\n");
}
