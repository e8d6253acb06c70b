import { describe, expect, test } from "bun:test";
import { parsePublicUrl } from "../src/public-url.ts";
import { exposureText } from "../src/up/exposure.ts";

describe("--public-url", () => {
  test.each([
    ["https://apps.example.com", "https://{tenant}.apps.example.com", "apps.example.com"],
    ["https://apps.example.com/", "https://{tenant}.apps.example.com", "apps.example.com"],
    ["https://apps.example.com:8443", "https://{tenant}.apps.example.com:8443", "apps.example.com"],
    ["https://{tenant}.apps.example.com", "https://{tenant}.apps.example.com", "apps.example.com"],
    ["https://example.com/{tenant}", "https://example.com/{tenant}", "example.com"],
    ["http://192.0.2.7:8080", "http://192.0.2.7:8080/{tenant}", undefined],
    ["http://[2001:db8::1]/{tenant}", "http://[2001:db8::1]/{tenant}", undefined],
  ])("%s", (text, pattern, domain) => {
    expect(parsePublicUrl(text)).toEqual({ pattern, domain });
  });

  test.each([
    "apps.example.com",
    "ftp://apps.example.com",
    "https://apps.example.com/x",
    "https://example.com/x/{tenant}",
    "https://example.com/{tenant}/x",
    "https://{tenant}-apps.example.com",
    "https://a.{tenant}.example.com",
    "https://{tenant}.example.com/{tenant}",
    "https://user:secret@apps.example.com",
    "https://apps.example.com?x=1",
    "",
  ])("%p is refused with an example", (text) => {
    expect(() => parsePublicUrl(text)).toThrow("https://apps.example.com");
  });
});

describe("what up says of who can reach what", () => {
  const closed = { host: "127.0.0.1", port: 8080, publicUrl: undefined, trustForwarded: [] };
  test("nothing on loopback", () => {
    for (const host of ["127.0.0.1", "::1", "localhost"])
      expect(exposureText({ ...closed, host })).toEqual([]);
  });

  test("the open port, and tenants that ignore HOST", () => {
    const text = exposureText({ ...closed, host: "0.0.0.0" }).join("\n");
    for (const part of [
      "0.0.0.0:8080",
      "without TLS",
      "the API, agents and metering stay on loopback",
      "20000-32767",
    ]) {
      expect(text).toContain(part);
    }
    expect(exposureText({ ...closed, host: "::" })[0]).toContain("[::]:8080");
  });

  test("a public https URL without a trusted proxy", () => {
    const publicUrl = "https://{tenant}.apps.example.com";
    expect(exposureText({ ...closed, publicUrl })[0]).toContain("--trust-forwarded");
    expect(exposureText({ ...closed, publicUrl, trustForwarded: ["127.0.0.1"] })).toEqual([]);
  });
});
