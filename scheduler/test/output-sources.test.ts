/** Whose output is read when there are more instances than can be read at once. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { InstanceRefSchema } from "@warren/proto/common";
import { mostAtOnce, type Output, outputOf, type SourcesOptions } from "../src/output/sources.ts";

/** No node is known here: what is to be read is told all the same. */
const options: SourcesOptions = {
  agents: {
    connection: () => {
      throw new Error("nothing is asked of an agent without a URL");
    },
  },
  agentUrl: () => undefined,
  monotonic: () => performance.now(),
};

const refs = (n: number) =>
  Array.from({ length: n }, (_, i) =>
    create(InstanceRefSchema, { tenant: "shop", node: "n1", id: `i${i}`, generation: BigInt(i) }),
  );

async function firstOf(n: number): Promise<Output> {
  const wanted = { tail: 10, follow: false, partial: false };
  const output = outputOf(refs(n), wanted, options, new AbortController().signal);
  const first = await output.next();
  await output.return(undefined);
  return first.value as Output;
}

test("of more than can be read at once the newest are, and how many are not is told", async () => {
  const { instances, leftOut } = await firstOf(mostAtOnce + 30);
  expect([instances?.length, leftOut]).toEqual([mostAtOnce, 30]);
  expect(new Set(instances).has("i29")).toBe(false);
  expect(new Set(instances).has("i30")).toBe(true);
  expect(await firstOf(mostAtOnce)).toMatchObject({ leftOut: 0 });
});
