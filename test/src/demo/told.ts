/** What the demo does and sees, in words, and the proof that it saw it. */
import pc from "picocolors";

export function ms(value: number): string {
  return value < 10
    ? `${value.toFixed(1)} ms`
    : value < 2_000
      ? `${Math.round(value)} ms`
      : `${(value / 1000).toFixed(1)} s`;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

export class Told {
  title(text: string): void {
    console.log(`\n${pc.bold(text)}`);
  }

  does(text: string): void {
    console.log(`${pc.cyan("▸")} ${text}`);
  }

  saw(text: string): void {
    console.log(`  ${pc.green("✓")} ${text}`);
  }

  note(text: string): void {
    console.log(`  ${pc.dim(text)}`);
  }

  /** @throws Error when what was seen is not what should be */
  verify(condition: unknown, text: string): asserts condition {
    if (!condition) throw new Error(`should be so, but is not: ${text}`);
    this.saw(text);
  }
}
