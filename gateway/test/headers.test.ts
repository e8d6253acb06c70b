import { describe, expect, test } from "bun:test";
import { requestHeaders, responseHeaders } from "../src/headers.ts";

const client = { address: "10.1.1.1", host: "shop.example.com:80", prefix: "/shop", trusted: false };

describe("headers for the tenant", () => {
  test("what a client says of itself is replaced", () => {
    const headers = requestHeaders(
      new Headers({ "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Real-IP": "6.6.6.6" }),
      client,
    );
    expect(headers.get("x-forwarded-for")).toBe("10.1.1.1");
    expect(headers.get("x-forwarded-proto")).toBe("http");
    expect(headers.get("x-forwarded-prefix")).toBe("/shop");
    expect(headers.has("x-real-ip")).toBe(false);
  });

  test("behind a proxy of the operator's own it is believed and extended", () => {
    const headers = requestHeaders(
      new Headers({
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.example.com",
        "X-Forwarded-Prefix": "/apps",
      }),
      { ...client, trusted: true },
    );
    expect(headers.get("x-forwarded-for")).toBe("6.6.6.6, 10.1.1.1");
    expect(headers.get("x-forwarded-proto")).toBe("https");
    expect(headers.get("x-forwarded-host")).toBe("shop.example.com");
    expect(headers.get("x-forwarded-prefix")).toBe("/apps/shop");
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
