/** The schemas of --json: that every verb has one, and that docs/json.md says what they say. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { TenantSchema } from "@warren/proto/common";
import type { Command } from "commander";
import { coldJson } from "../src/commands/lists.ts";
import { commentsOf } from "../src/json/comments.ts";
import { outputOf, outputs } from "../src/json/outputs.ts";
import { jsonPage } from "../src/json/page.ts";
import { outputProblem } from "../src/json/shape.ts";
import { generatedSources } from "../src/json/sources.ts";
import { program } from "../src/main.ts";

/** "env set" of each that takes --json. */
function verbsWithJson(command: Command, path: readonly string[] = []): string[] {
  const takesJson = command.options.some(({ long }) => long === "--json");
  const below = command.commands.flatMap((one) => verbsWithJson(one, [...path, one.name()]));
  return takesJson ? [path.join(" "), ...below] : below;
}

test("every verb that takes --json has a schema, and every schema a verb", () => {
  expect(outputs.map(({ verb }) => verb).sort()).toEqual(verbsWithJson(program).sort());
});

test("docs/json.md is what `make gen` makes of the schemas", () => {
  const page = jsonPage(outputs, commentsOf(generatedSources()));
  expect(readFileSync(join(import.meta.dir, "../../docs/json.md"), "utf8")).toBe(page);
});

test("every field of a message on the page is told in words", () => {
  const rows = jsonPage(outputs, commentsOf(generatedSources())).split("\n");
  expect(rows.filter((row) => row.startsWith("| `") && row.endsWith("| |"))).toEqual([]);
});

test("a schema refuses fields that it does not name, and values of another type", () => {
  const ps = outputOf("ps")!;
  const cold = { tenant: "x", state: "cold", version: 1, url: "" };
  expect(outputProblem(ps, cold)).toBeUndefined();
  expect(outputProblem(ps, { tenant: "x", ref: { tenant: "x", id: "i" } })).toBeUndefined();
  expect(outputProblem(ps, { ...cold, more: 1 })).toContain("ps printed");
  expect(outputProblem(ps, { ...cold, state: "warm" })).toContain("ps printed");
  expect(outputProblem(ps, { tenant: "x", ref: { tenant: "x" }, more: 1 })).toContain("ps printed");
  expect(outputProblem(outputOf("top")!, { stats: {}, nodes: 1, instances: [] })).toContain("top printed");
});

test("a tenant without an instance says whether it is asleep, or why it does not start", () => {
  const of = (tenant: Parameters<typeof create<typeof TenantSchema>>[1]) => {
    const json = JSON.parse(JSON.stringify(coldJson(create(TenantSchema, tenant))));
    expect(outputProblem(outputOf("ps")!, json)).toBeUndefined();
    return json;
  };
  const asleep = { spec: { key: "x" }, version: 3n, url: "http://x.localhost/" };
  expect(of(asleep)).toEqual({ tenant: "x", state: "cold", version: 3, url: "http://x.localhost/" });
  expect(of({ ...asleep, evicted: "cap" })).toMatchObject({ state: "cold", evicted: "cap" });
  expect(of({ ...asleep, backoff: { failures: 2, last: "crashed" } })).toMatchObject({
    state: "back-off",
    backoff: { failures: 2, last: "crashed" },
  });
  expect(of({ ...asleep, backoff: { failures: 9, crashLoop: true } }).state).toBe("crash-loop");
});
