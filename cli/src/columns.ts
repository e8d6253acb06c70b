/** Tables that fit a terminal: the least important columns go first, then the widest of the rest are cut. */
import pc from "./colors.ts";
import { tableText } from "./output.ts";
import { terminalWidth } from "./plot.ts";

export interface Column<Row> {
  readonly title: string;
  /** 0: always shown. Of the others, the highest goes first. */
  readonly rank: number;
  readonly text: (row: Row) => string;
}

/** How a table is shown that must fit. */
export interface TableRoom {
  /** Columns of the terminal; nothing shows all. */
  readonly width: number | undefined;
  /** Names the columns that were left out, below the table; default true. */
  readonly footnote?: boolean;
}

/** Of the option that shows them all. */
export const wideText = "all columns, on a narrow terminal too";

/** The width that a table must fit: none where a program reads, or with `--wide`. */
export function tableWidth({ wide = false }: { readonly wide?: boolean }): number | undefined {
  return process.stdout.isTTY && !wide ? terminalWidth() : undefined;
}

/**
 * The columns in their order, without as many of the least important as it takes to fit.
 * Those of rank 0 stay, whether they fit or not.
 */
export function withRoom<C>(
  columns: readonly C[],
  rank: (column: C) => number,
  fits: (columns: readonly C[]) => boolean,
): readonly C[] {
  let shown = columns;
  while (!fits(shown)) {
    const least = Math.max(...shown.map(rank));
    if (least <= 0) break;
    shown = shown.filter((column) => rank(column) !== least);
  }
  return shown;
}

/** A table of all rows, in at most `width` columns of the terminal. */
export function fittingTable<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  { width, footnote = true }: TableRoom,
): string {
  const cells = new Map(columns.map((column) => [column, rows.map(column.text)]));
  const natural = new Map(columns.map((column) => [column, widthOfCells(column.title, cells.get(column)!)]));
  const widest = (column: Column<Row>) => natural.get(column)!;
  const widthOf = (some: readonly Column<Row>[]) =>
    some.reduce((sum, column) => sum + widest(column), gap * (some.length - 1));
  const fits = (some: readonly Column<Row>[]) => width === undefined || widthOf(some) <= width;
  const shown = withRoom(columns, ({ rank }) => rank, fits);
  const widths =
    width === undefined ? shown.map(widest) : shares(shown.map(widest), width - gap * (shown.length - 1));
  const text = tableText(
    shown.map(({ title }, n) => clip(title, widths[n]!)),
    rows.map((_, row) => shown.map((column, n) => clip(cells.get(column)![row]!, widths[n]!))),
  );
  const left = columns.filter((column) => !shown.includes(column)).map(({ title }) => title.toLowerCase());
  if (!footnote || left.length === 0) return text;
  const note = `… and ${left.join(", ")}: --wide`;
  return `${text}${pc.dim(width !== undefined && note.length > width ? "… and more: --wide" : note)}\n`;
}

function widthOfCells(title: string, cells: readonly string[]): number {
  return cells.reduce((most, text) => Math.max(most, Bun.stringWidth(text)), title.length);
}

/** Blanks between two columns, as `tableText` sets them. */
const gap = 2;
/** A column cut to less than this says nothing. */
const leastWidth = 4;

/** Widths that sum to at most `room`: what is too much is taken from the widest. */
function shares(wanted: readonly number[], room: number): number[] {
  const widths = [...wanted];
  const sum = () => widths.reduce((a, b) => a + b, 0);
  for (let over = sum() - room; over > 0; over = sum() - room) {
    const most = Math.max(...widths);
    if (most <= leastWidth) break;
    const second = Math.max(leastWidth, ...widths.filter((width) => width < most));
    const at = widths.indexOf(most);
    const equal = widths.filter((width) => width === most).length > 1;
    widths[at] = equal ? most - 1 : Math.max(second, most - over);
  }
  return widths;
}

/** The text in so many columns, with an ellipsis where something was cut off. */
export function clip(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  let cut = "";
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (Bun.stringWidth(cut + segment) > width - 1) break;
    cut += segment;
  }
  return `${cut}…`;
}
