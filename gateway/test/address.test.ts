import { describe, expect, test } from "bun:test";
import { addressOf } from "../src/address.ts";

const at = (host: string | null, target: string) => addressOf(host, target, "apps.example.com");

describe("which tenant a request names", () => {
  test("the first label below the domain, whatever the port and the case", () => {
    for (const host of ["shop.apps.example.com", "Shop.Apps.Example.COM:8080", "shop.apps.example.com.:1"]) {
      expect(at(host, "/a?b=1")).toEqual({ kind: "tenant", tenant: "shop", target: "/a?b=1", prefix: "" });
    }
  });

  test("the first part of the path, on the bare domain or an address only", () => {
    for (const host of ["apps.example.com", "127.0.0.1:8080", "[::1]:8080", "10.0.0.1"]) {
      expect(at(host, "/shop/a/b?c")).toEqual({
        kind: "tenant",
        tenant: "shop",
        target: "/a/b?c",
        prefix: "/shop",
      });
    }
    expect(at("shop.apps.example.com", "/other/a")).toMatchObject({ tenant: "shop", target: "/other/a" });
  });

  test("a prefix is stripped without a redirect", () => {
    expect(at("10.0.0.1", "/shop")).toMatchObject({ target: "/", prefix: "/shop" });
    expect(at("10.0.0.1", "/shop?a=1")).toMatchObject({ target: "/?a=1" });
    expect(at("10.0.0.1", "/shop/")).toMatchObject({ target: "/" });
    expect(at("10.0.0.1", "/shop//x")).toMatchObject({ target: "//x" });
  });

  test("what names no tenant is refused with a reason", () => {
    const cases: [string | null, string, number][] = [
      [null, "/", 400],
      ["", "/", 400],
      ["a.b.apps.example.com", "/", 400],
      ["-bad.apps.example.com", "/", 400],
      ["b_d.apps.example.com", "/", 400],
      [`${"a".repeat(64)}.apps.example.com`, "/", 400],
      [".apps.example.com", "/", 400],
      ["evil.com", "/", 404],
      ["evilapps.example.com", "/", 404],
      ["10.0.0.1", "/", 404],
      ["10.0.0.1", "/../x", 400],
      ["10.0.0.1", "/%2e%2e/x", 400],
      ["10.0.0.1", "/A/x", 400],
    ];
    for (const [host, target, status] of cases)
      expect(at(host, target)).toMatchObject({ kind: "refused", status });
  });
});
