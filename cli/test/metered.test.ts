/** What `warren usage` and `warren invoice` print: units, money, moments, plots. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toTimestamp } from "@warren/common/time";
import { UsageMeter } from "@warren/proto/common";
import { InvoiceSchema, type TenantUsage, TenantUsageSchema } from "@warren/proto/metering";
import { invoicesText, invoiceText } from "../src/invoice-text.ts";
import { momentOption, monthOption } from "../src/moments.ts";
import { bar, fold, sparkline } from "../src/plot.ts";
import { bytesText, countText, cpuText, memoryTimeText, moneyText, timeText } from "../src/units.ts";
import { usageColumns } from "../src/usage-columns.ts";
import { tenantsText, windowsText } from "../src/usage-text.ts";

describe("units", () => {
  test("are those that fit", () => {
    expect([0n, 1_500n, 12_340_000n, 3_600_000_000n, 36_000_000_000_000n].map(cpuText)).toEqual([
      "0 s",
      "0.002 s",
      "12.3 s",
      "1.0 h",
      "10000 h",
    ]);
    expect([0n, 2n ** 20n, 3n * 2n ** 30n, 7_200n * 2n ** 30n].map(memoryTimeText)).toEqual([
      "0 GiB·s",
      "1.0 MiB·s",
      "3.0 GiB·s",
      "2.0 GiB·h",
    ]);
    expect([0n, 999n, 1_000n, 12_345n, 999_999n, 4_500_000n].map(countText)).toEqual([
      "0",
      "999",
      "1.0k",
      "12.3k",
      "1.0M",
      "4.5M",
    ]);
    expect([0n, 1_023n, 3n * 2n ** 20n].map(bytesText)).toEqual(["0 B", "1023 B", "3.0 MiB"]);
    expect([0n, 90_000n, 5_400_000n].map(timeText)).toEqual(["0 s", "90.0 s", "1.5 h"]);
  });

  test("of money are exact, and never nothing for something", () => {
    expect(
      [0n, 12_345_000n, 12_355_000n, 9_999n, -1_000_000n, 2n ** 62n].map((micros) =>
        moneyText(micros, "EUR"),
      ),
    ).toEqual(["0.00 EUR", "12.34 EUR", "12.36 EUR", "0.009999 EUR", "-1.00 EUR", "4611686018427.39 EUR"]);
    expect(moneyText(1_500_000n, "JPY")).toBe("2 JPY");
    expect(moneyText(1_234_500n, "KWD")).toBe("1.234 KWD");
  });
});

describe("moments", () => {
  const now = Date.UTC(2026, 10, 21, 12);
  test("are times, days, months (UTC), or so long ago", () => {
    const iso = (text: string) => new Date(momentOption(text, now)).toISOString().slice(0, 16);
    expect(["2026-11-20T10:30:00Z", "2026-11-20T10:30", "2026-11-20T10:30+02:00"].map(iso)).toEqual([
      "2026-11-20T10:30",
      "2026-11-20T10:30",
      "2026-11-20T08:30",
    ]);
    expect(["2026-02-28", "2026-02", "36h", "7d"].map(iso)).toEqual([
      "2026-02-28T00:00",
      "2026-02-01T00:00",
      "2026-11-20T00:00",
      "2026-11-14T12:00",
    ]);
    expect(monthOption("2026-11")).toBe(Date.UTC(2026, 10));
  });

  test.each(["", "yesterday", "2026", "2026-13", "2026-02-30", "11/21/2026", "-1d"])("%p is none", (text) => {
    expect(() => momentOption(text, now)).toThrow("2026-11-21");
    expect(() => monthOption(text)).toThrow("2026-11");
  });
});

describe("plots", () => {
  test("bars fill their width for the most, and show what is more than nothing", () => {
    expect([0n, 1n, 500n, 1_000n].map((value) => bar(value, 1_000n, 4))).toEqual(["", "▏", "██", "████"]);
    expect(bar(3n, 0n, 4)).toBe("");
  });

  test("nor is a month whose end no time can name", () => {
    expect(() => monthOption("9999-12")).toThrow("2026-11");
  });

  test("sparklines have a column for each value, and fold when they are many", () => {
    expect(sparkline([0n, 1n, 4n, 8n], 8n)).toBe(" ▁▄█");
    expect(fold([1n, 2n, 3n, 4n, 5n], 2)).toEqual([6n, 9n]);
    const many = Array.from({ length: 1_000 }, (_, n) => BigInt(n));
    const folded = fold(many, 37);
    expect(folded).toHaveLength(37);
    expect(folded.reduce((sum, value) => sum + value)).toBe(499_500n);
  });
});

const day = 86_400_000;
const begin = Date.UTC(2026, 10, 1);
const row = (tenant: string, n: number, cpuUs: bigint): TenantUsage =>
  create(TenantUsageSchema, {
    tenant,
    start: toTimestamp(begin + n * day),
    end: toTimestamp(begin + (n + 1) * day),
    cpuUs,
    requests: cpuUs / 1_000n,
  });
const columns = ["cpu-seconds", "requests"].map((name) => usageColumns.get(name)!);
const rows = [
  row("blog", 0, 1_000_000n),
  row("blog", 2, 1_000_000n),
  row("shop", 0, 2_000_000n),
  row("shop", 1, 6_000_000n),
];

describe("usage", () => {
  test("of a tenant has a line for each window, a bar, and a sum", () => {
    expect(windowsText(rows.slice(2), "day", { columns, width: 44 })).toBe(
      [
        "FROM          CPU  REQUESTS  cpu",
        "2026-11-01  2.0 s      2.0k  █████",
        "2026-11-02  6.0 s      6.0k  ███████████████",
        "total       8.0 s      8.0k",
        "",
      ].join("\n"),
    );
  });

  test("of all tenants has the highest first, a line of its windows for each, and a sum", () => {
    expect(tenantsText(rows, "day", { columns, width: 60, most: 5 })).toBe(
      [
        "TENANT        CPU  REQUESTS  cpu by day",
        "shop        8.0 s      8.0k  ▃█",
        "blog        2.0 s      2.0k  █ █",
        "2 tenants  10.0 s     10.0k  ▄█▂",
        "",
      ].join("\n"),
    );
    const few = tenantsText(rows, "total", { columns, width: undefined, most: 1 });
    expect(few).toContain("1 tenants with less are not shown");
    expect(few).not.toContain("blog");
    expect(few).toContain("10.0 s");
  });

  test("never is wider than the terminal because of a plot", () => {
    const text = (width: number) => tenantsText(rows, "total", { columns, width, most: 5 });
    for (const width of [20, 35, 40, 80, 300]) {
      const plain = tenantsText(rows, "total", { columns, width: undefined, most: 5 });
      const widest = Math.max(
        ...text(width)
          .split("\n")
          .map((line) => Bun.stringWidth(line)),
      );
      const least = Math.max(...plain.split("\n").map((line) => Bun.stringWidth(line)));
      expect(widest).toBeLessThanOrEqual(Math.max(width, least));
    }
  });
});

const invoice = (tenant: string, total: bigint, minimum = 0n) =>
  create(InvoiceSchema, {
    tenant,
    plan: "pro",
    currency: "EUR",
    start: toTimestamp(begin),
    end: toTimestamp(begin + 30 * day),
    lines: [
      {
        meter: UsageMeter.MEMORY_GIB_SECONDS,
        name: "Memory",
        quantity: "1234567.123456",
        free: "360000",
        model: "unit",
        amountMicros: total - minimum,
      },
      {
        meter: UsageMeter.REQUESTS,
        name: "Calls",
        quantity: "12",
        free: "0",
        model: "graduated",
        amountMicros: 0n,
      },
    ],
    subtotalMicros: total - minimum,
    minimumMicros: minimum,
    totalMicros: total,
  });

describe("an invoice", () => {
  test("has what was used, what is free, and what it comes to", () => {
    const text = invoiceText(invoice("shop", 25_000_000n, 13_000_000n));
    for (const part of [
      /^shop, 2026-11, plan pro {2}so far: it may still rise$/m,
      /^Memory +1 234 567\.123 GiB·s +360 000 GiB·s +unit +12\.00 EUR$/m,
      /^Calls +12 +- +graduated +0\.00 EUR$/m,
      /to the minimum +13\.00 EUR$/m,
      /total +25\.00 EUR$/m,
    ])
      expect(text).toMatch(part);
    const none = create(InvoiceSchema, { tenant: "stray", start: toTimestamp(begin) });
    expect(invoiceText(none)).toContain("gives it no plan");
  });

  test("among all: the highest first, and the sum", () => {
    const text = invoicesText([invoice("blog", 1_000_000n), invoice("shop", 4_000_000n, 1_000_000n)], 70);
    expect(text.split("\n").map((line) => line.replace(/ {2,}/g, "|"))).toEqual([
      "TENANT|PLAN|USED|TO MINIMUM|TOTAL",
      expect.stringMatching(/^shop\|pro\|3\.00 EUR\|1\.00 EUR\|4\.00 EUR\|█+$/),
      expect.stringMatching(/^blog\|pro\|1\.00 EUR\|-\|1\.00 EUR\|█+/),
      "2 tenants|5.00 EUR",
      "",
    ]);
  });
});
