import { describe, expect, test } from "bun:test";
import { named } from "../src/address.ts";
import { originOf } from "../src/origin.ts";
import { forwardedElement, forwardedElements } from "../src/rfc7239.ts";
import { TrustedProxies } from "../src/trusted.ts";

const trusted = new TrustedProxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8"]);

function seen(headers: Record<string, string>, peer = "10.1.1.1", list = trusted) {
  const lower = new Map(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
  const arrival = { peer, host: "shop.example.com", header: (name: string) => lower.get(name) ?? null };
  return originOf(arrival, list);
}

describe("a peer that is not trusted", () => {
  test("is the client, whatever it says", () => {
    const lies = {
      "X-Forwarded-For": "6.6.6.6",
      "X-Forwarded-Proto": "https",
      "X-Forwarded-Host": "evil.example",
      "X-Forwarded-Port": "1",
      "X-Forwarded-Prefix": "/evil",
      Forwarded: "for=6.6.6.6;proto=https",
    };
    for (const origin of [seen(lies, "192.0.2.9"), seen(lies, "10.1.1.1", new TrustedProxies([]))]) {
      expect(origin).toMatchObject({
        proto: "http",
        host: "shop.example.com",
        port: "80",
        prefix: "",
        isRfc7239: false,
      });
      expect(origin.hops).toHaveLength(1);
    }
  });
});

describe("a trusted proxy", () => {
  test("says who the client is, and by what it came", () => {
    const headers = { "X-Forwarded-For": "192.0.2.9", "X-Forwarded-Proto": "https" };
    expect(seen(headers)).toMatchObject({
      hops: ["192.0.2.9", "10.1.1.1"],
      proto: "https",
      host: "shop.example.com",
      port: "443",
    });
    expect(seen(headers, "::ffff:10.1.1.1").hops).toEqual(["192.0.2.9", "10.1.1.1"]);
  });

  test("of several the client is the right-most that is not one of them, and what it says of itself goes no further", () => {
    const chain = "6.6.6.6, 10.9.9.9, 192.0.2.9, 10.3.3.3, 10.2.2.2";
    expect(seen({ "X-Forwarded-For": chain }).hops).toEqual([
      "192.0.2.9",
      "10.3.3.3",
      "10.2.2.2",
      "10.1.1.1",
    ]);
    // All of them the operator's own: one of them asks.
    expect(seen({ "X-Forwarded-For": "10.3.3.3" }).hops).toEqual(["10.3.3.3", "10.1.1.1"]);
  });

  test("lists of protocols and hosts are read at the client's place", () => {
    const origin = seen({
      "X-Forwarded-For": "6.6.6.6, 192.0.2.9, 10.3.3.3",
      "X-Forwarded-Proto": "http, https, http",
      "X-Forwarded-Host": "evil.example, shop.example.org:8443, inner",
    });
    expect(origin).toMatchObject({ proto: "https", host: "shop.example.org:8443", port: "8443" });
    // A client's own entry before the only one of the proxy.
    expect(seen({ "X-Forwarded-For": "192.0.2.9", "X-Forwarded-Proto": "https, http" }).proto).toBe("http");
  });

  test("addresses may have ports, brackets and zones; what is none is unknown and vouches for nobody", () => {
    const hops = (list: string) => seen({ "X-Forwarded-For": list }).hops.slice(0, -1);
    expect(hops("192.0.2.9:4711")).toEqual(["192.0.2.9"]);
    expect(hops("[2001:db8::1]:4711, fd00::2")).toEqual(["2001:db8::1", "fd00::2"]);
    expect(hops("6.6.6.6, unknown")).toEqual(["unknown"]);
    expect(hops("6.6.6.6, 10.0.0.1\u007f")).toEqual(["unknown"]);
  });

  test("rule 9: a chain without an end is cut", () => {
    expect(seen({ "X-Forwarded-For": Array(500).fill("10.0.0.1").join(",") }).hops).toHaveLength(32);
  });

  test("what is no host, protocol, port or path is not believed", () => {
    const origin = seen({
      "X-Forwarded-For": "192.0.2.9",
      "X-Forwarded-Host": "a b<script>",
      "X-Forwarded-Proto": "gopher",
      "X-Forwarded-Port": "1;2",
      "X-Forwarded-Prefix": "//no host\t",
    });
    expect(origin).toMatchObject({ host: "shop.example.com", proto: "http", port: "80", prefix: "" });
  });

  test("may speak Forwarded instead; beside X-Forwarded-* that is a client's own word", () => {
    const forwarded =
      'for=6.6.6.6, for="[2001:db8::1]:4711";proto=https;host="shop.example.org:8443", for=10.2.2.2';
    expect(seen({ Forwarded: forwarded })).toMatchObject({
      hops: ["2001:db8::1", "10.2.2.2", "10.1.1.1"],
      proto: "https",
      host: "shop.example.org:8443",
      isRfc7239: true,
    });
    expect(seen({ Forwarded: "for=6.6.6.6", "X-Forwarded-For": "192.0.2.9" })).toMatchObject({
      hops: ["192.0.2.9", "10.1.1.1"],
      isRfc7239: false,
    });
  });
});

describe("Forwarded", () => {
  test("is read with quotes, blanks and capitals, and not at all when it is not well formed", () => {
    const read = (text: string) => forwardedElements(text).map((element) => Object.fromEntries(element));
    expect(read('For="_a\\"b"; PROTO=https , for=unknown')).toEqual([
      { for: '_a"b', proto: "https" },
      { for: "unknown" },
    ]);
    for (const text of ['for="open', "for", "for=1.2.3.4 for=5.6.7.8", "=x"]) expect(read(text)).toEqual([]);
  });

  test("what is written can be read", () => {
    const text = [
      forwardedElement("2001:db8::1", { host: "shop.example.com:80", proto: "https" }),
      forwardedElement("10.0.0.1"),
    ].join(", ");
    expect(forwardedElements(text).map((element) => Object.fromEntries(element))).toEqual([
      { for: "[2001:db8::1]", host: "shop.example.com:80", proto: "https" },
      { for: "10.0.0.1" },
    ]);
  });
});

test("ranges: addresses and prefixes of both families; what is none is named", () => {
  expect(trusted.has("10.255.0.1")).toBe(true);
  expect(trusted.has("11.0.0.1")).toBe(false);
  expect(trusted.has("fd12::1")).toBe(true);
  expect(trusted.has("127.0.0.2")).toBe(false);
  expect(trusted.has("not an address")).toBe(false);
  for (const range of ["10.0.0.0/33", "example.com", "10.0.0.0/", "", "::/129"]) {
    expect(() => new TrustedProxies([range])).toThrow("is no range of addresses");
  }
});

describe("the tenant that a proxy names", () => {
  const at = (host: string, forwardedHost: string, target = "/") => {
    const { address, host: shown } = named(host, { host: forwardedHost }, target, "example.com");
    return [address.kind === "tenant" ? address.tenant : "refused", shown];
  };
  test("is that of Host where it names one; else the forwarded host's", () => {
    expect(at("a.example.com", "a.example.com")).toEqual(["a", "a.example.com"]);
    expect(at("a.example.com", "b.example.com")).toEqual(["a", "a.example.com"]);
    expect(at("a.example.com", "shop.com")).toEqual(["a", "a.example.com"]);
    expect(at("127.0.0.1:8080", "b.example.com")).toEqual(["b", "b.example.com"]);
    expect(at("upstream", "b.example.com")).toEqual(["b", "b.example.com"]);
    expect(at("127.0.0.1:8080", "example.com", "/c/x")).toEqual(["c", "example.com"]);
    expect(at("upstream", "elsewhere.org")).toEqual(["refused", "elsewhere.org"]);
  });
});
