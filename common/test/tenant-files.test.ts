/** What specs may say of files. */
import { describe, expect, test } from "bun:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Availability, Isolation, TenantSpecSchema } from "@warren/proto/common";
import { neededRung } from "../src/isolation.ts";
import { filesProblem, isAtMostOne } from "../src/tenant-files.ts";

type Spec = Omit<MessageInitShape<typeof TenantSpecSchema>, "$typeName">;

const release = { case: "release" as const, value: `sha256:${"0".repeat(64)}` };
const directory = { case: "directory" as const, value: "/srv/app" };
const specOf = (spec: Spec) => create(TenantSpecSchema, { key: "app", source: release, ...spec });
const problem = (spec: Spec) => {
  const made = specOf(spec);
  return filesProblem(made, neededRung(made));
};
const volume = (path: string, name = "data") => ({ name, path });

describe("a spec's files", () => {
  test.each<Spec>([
    {},
    { writable: [".next/cache", "uploads", "..a/b"] },
    { volumes: [volume("data"), volume("/var/lib/app", "lib")], writable: ["data-cache"] },
    { volumes: [volume("data")], instances: { min: 1, max: 1 }, availability: Availability.AT_MOST_ONE },
    { source: directory, isolation: Isolation.NAMESPACE, volumes: [volume("data")] },
    { source: directory, writable: ["cache"] },
  ])("%j is fine", (spec) => {
    expect(problem(spec)).toBeUndefined();
  });

  test.each<[Spec, string, string]>([
    [{ writable: ["/tmp/x"] }, "writable[0]", "relative to the app's directory"],
    [{ writable: ["a", "../b"] }, "writable[1]", "without"],
    [{ writable: ["a//b"] }, "writable[0]", "without"],
    [{ writable: ["."] }, "writable[0]", "without"],
    [{ volumes: [volume("/")] }, "volumes[0].path", "without"],
    [{ volumes: [volume("/usr/lib/app")] }, "volumes[0].path", "/usr"],
    [{ volumes: [volume("data")], writable: ["data/cache"] }, "volumes[0].path", "overlap"],
    [{ volumes: [volume("a"), volume("b")] }, "volumes[1].name", "two volumes named data"],
    [{ volumes: [volume("a")], instances: { max: 3 } }, "instances", "one at most"],
    [{ volumes: [volume("a")], instances: { min: 2 } }, "instances", "one at most"],
    [{ volumes: [volume("a")], availability: Availability.AT_LEAST_ONE }, "availability", "at-most-one"],
    [{ source: directory, volumes: [volume("a")] }, "volumes", "namespace"],
    [{ source: directory, isolation: Isolation.CGROUP, writable: ["a"] }, "writable", "namespace"],
  ])("%j is refused at %s", (spec, field, message) => {
    expect(problem(spec)?.field).toBe(field);
    expect(problem(spec)?.message).toContain(message);
  });

  test("with volumes a tenant is at-most-one, and an absolute path needs a mount namespace", () => {
    expect(isAtMostOne(specOf({ volumes: [volume("data")] }))).toBe(true);
    expect(isAtMostOne(specOf({ writable: ["data"] }))).toBe(false);
    expect(neededRung(specOf({ volumes: [volume("data")] }))).toBe(Isolation.NONE);
    expect(neededRung(specOf({ volumes: [volume("/data")] }))).toBe(Isolation.NAMESPACE);
  });
});
