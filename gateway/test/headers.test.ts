import { describe, expect, test } from "bun:test";
import { requestHeaders, responseHeaders } from "../src/headers.ts";
import type { Origin } from "../src/origin.ts";

const origin: Origin = {
  hops: ["10.1.1.1"],
  proto: "http",
  host: "shop.example.com:80",
  port: "80",
  prefix: "",
  isRfc7239: false,
};
const client = { origin, host: "shop.example.com:80", prefix: "/shop" };

describe("headers for the tenant", () => {
  test("what a client says of itself is replaced", () => {
    const headers = requestHeaders(
      new Headers({ "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Real-IP": "6.6.6.6" }),
      client,
    );
    expect(headers.get("x-forwarded-for")).toBe("10.1.1.1");
    expect(headers.get("x-forwarded-proto")).toBe("http");
    expect(headers.get("x-forwarded-prefix")).toBe("/shop");
    expect(headers.get("x-real-ip")).toBe("10.1.1.1");
    expect(headers.get("x-forwarded-port")).toBe("80");
  });

  test("behind a proxy of the operator's own, what it says is passed on and added to", () => {
    const behind: Origin = {
      hops: ["192.0.2.9", "10.1.1.1"],
      proto: "https",
      host: "shop.example.com",
      port: "443",
      prefix: "/apps",
      isRfc7239: true,
    };
    const headers = requestHeaders(new Headers({ "X-Forwarded-For": "6.6.6.6" }), {
      ...client,
      origin: behind,
    });
    expect(Object.fromEntries([...headers].filter(([name]) => /^(x-|forwarded)/.test(name)))).toEqual({
      "x-forwarded-for": "192.0.2.9, 10.1.1.1",
      "x-forwarded-proto": "https",
      "x-forwarded-host": "shop.example.com",
      "x-forwarded-port": "443",
      "x-forwarded-prefix": "/apps/shop",
      "x-real-ip": "192.0.2.9",
      forwarded: "for=192.0.2.9;host=shop.example.com;proto=https, for=10.1.1.1",
    });
  });

  test("what belongs to one hop goes no further, and cannot name what the tenant relies on", () => {
    const headers = requestHeaders(
      new Headers({
        Connection: "keep-alive, X-Mine, Host, Cookie, X-Forwarded-For",
        "X-Mine": "1",
        Cookie: "a=1",
        "Keep-Alive": "5",
        TE: "trailers",
        "Proxy-Authorization": "Basic x",
        Authorization: "Bearer y",
      }),
      client,
    );
    for (const name of ["connection", "x-mine", "keep-alive", "te", "proxy-authorization"]) {
      expect(headers.has(name)).toBe(false);
    }
    expect(headers.get("cookie")).toBe("a=1");
    expect(headers.get("host")).toBe("shop.example.com:80");
    expect(headers.get("x-forwarded-for")).toBe("10.1.1.1");
    expect(headers.get("authorization")).toBe("Bearer y");
  });
});

test("headers for the client: several Set-Cookie stay several", () => {
  const from = new Headers([
    ["Set-Cookie", "a=1"],
    ["Set-Cookie", "b=2"],
    ["Transfer-Encoding", "chunked"],
  ]);
  const headers = responseHeaders(from);
  expect(headers.getSetCookie()).toEqual(["a=1", "b=2"]);
  expect(headers.has("transfer-encoding")).toBe(false);
});
