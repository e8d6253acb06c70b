/** Which part of a window is settled and whole. Pure. */
import { settleMs } from "../billing/period.ts";
import { hourMs } from "../core/plausible.ts";
import { type Cut, startOfCut, type Window } from "../core/window.ts";

/** The hours of the window whose cut is over for long enough: of a month that is not, none. */
export function settledPart(window: Window, cut: Cut, now: number): Window {
  const settled = startOfCut(cut === "total" ? "hour" : cut, now - settleMs) / hourMs;
  const untilHour = Math.min(window.untilHour, settled);
  return { fromHour: Math.min(window.fromHour, untilHour), untilHour };
}

/** Whether every row is a whole hour, day or month: none is cut short by where the window begins or ends. */
export const isWhole = ({ fromHour, untilHour }: Window, cut: Exclude<Cut, "total">): boolean =>
  [fromHour, untilHour].every((hour) => !isDate(hour) || startOfCut(cut, hour * hourMs) === hour * hourMs);

/** An open end is further away than any date. */
const isDate = (hour: number): boolean => Math.abs(hour * hourMs) < 8.64e15;
