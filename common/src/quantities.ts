/** Durations, sizes and shares of cores as people write them: in flags, settings and specs. Pure, and Node-clean. */

const units: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** ms of "250ms", "30s", "5m", "1h", "7d"; nothing for what is none. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text.trim());
  return match ? Number(match[1]) * units[match[2]!]! : undefined;
}

const sizes: Record<string, number> = {
  "": 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
};

/** Bytes of "512MiB", "512m" (the same), "2GiB" or a plain number; nothing for what is none. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(KiB|MiB|GiB|k|m|g|)$/.exec(text.trim());
  return match ? Math.round(Number(match[1]) * sizes[match[2]!]!) : undefined;
}

/** Thousandths of a core of "500m" or "0.5" (both half a core); nothing for what is none. */
export function parseCores(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(m?)$/.exec(text.trim());
  return match ? Math.round(Number(match[1]) * (match[2] ? 1 : 1000)) : undefined;
}
