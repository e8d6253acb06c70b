/** What `warren logs` prints of lines; tests have no terminal, and so no colours. */
import { expect, test } from "bun:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { toTimestamp } from "@warren/common/time";
import { LogLineSchema } from "@warren/proto/scheduler";
import { LinePrinter } from "../src/log-lines.ts";

const [first, second] = ["01J0000000000000000000AAAA", "01J0000000000000000000BBBB"];
const line = (text: string, more: MessageInitShape<typeof LogLineSchema> = {}) =>
  create(LogLineSchema, {
    instance: first,
    stream: "stdout",
    text,
    at: toTimestamp(Date.UTC(2026, 10, 30)),
    ...more,
  });
const printed = (
  style: { timestamps?: boolean; raw?: boolean },
  read: string[],
  ...lines: ReturnType<typeof line>[]
) => {
  const printer = new LinePrinter({ timestamps: false, raw: true, ...style });
  printer.read(read);
  return lines.map((one) => printer.print(one)).join("") + printer.end();
};

test("lines of one instance stand alone, of several they begin with whose they are", () => {
  expect(printed({}, [first], line("a"), line("b"))).toBe("a\nb\n");
  expect(printed({}, [first, second], line("a"), line("b", { instance: second }))).toBe(
    "00AAAA | a\n00BBBB | b\n",
  );
  // From the second one on, where a follower meets it after a restart.
  expect(printed({}, [first], line("a"), line("b", { instance: second }))).toBe("a\n00BBBB | b\n");
});

test("with timestamps each begins with when it was read", () => {
  expect(printed({ timestamps: true }, [], line("a"))).toBe("2026-11-30T00:00:00.000Z a\n");
});

test("a line that has begun is gone on with, or written again where another came in between", () => {
  const begun = (text: string) => line(text, { partial: true });
  expect(printed({}, [], begun("Name? "), line("Name? Ada"), line("hi"))).toBe("Name? Ada\nhi\n");
  expect(printed({}, [], begun("1 %"), begun("1 % 2 %"), line("1 % 2 % done"))).toBe("1 % 2 % done\n");
  expect(printed({}, [], begun("Name? "), line("oh", { stream: "stderr" }), line("Name? Ada"))).toBe(
    "Name? \noh\nName? Ada\n",
  );
  expect(printed({}, [], line("a"), begun("prompt> "))).toBe("a\nprompt> \n");
});

test("a terminal gets colours and no other controls; a pipe what was written", () => {
  const evil = line("\x1b[31mred\x1b[0m\x1b[2J");
  expect(printed({ raw: false }, [], evil)).toBe("\x1b[31mred\x1b[0m\\x1b[2J\x1b[0m\n");
  expect(printed({ raw: true }, [], evil)).toBe("\x1b[31mred\x1b[0m\x1b[2J\n");
});
