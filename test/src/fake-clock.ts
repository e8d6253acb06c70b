/**
 * Wall clocks that can be set, one per process: by libfaketime, which stands between a process and the C library. The
 * monotonic clock is left alone, as when an administrator or NTP sets a host's time.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const libraries = "/usr/lib";

/** The library, if it is installed (Debian's libfaketime). */
export function fakeTimeLibrary(): string | undefined {
  if (!existsSync(libraries)) return undefined;
  const paths = readdirSync(libraries).map((name) => join(libraries, name, "faketime", "libfaketime.so.1"));
  return paths.find((path) => existsSync(path));
}

export interface FakeClock {
  /** Environment of the process that has it. */
  readonly env: Readonly<Record<string, string>>;
  step(seconds: number): void;
}

export class FakeClocks {
  /** @param directory holds a file per clock; made if it is not there */
  constructor(
    private readonly directory: string,
    private readonly library: string,
  ) {
    mkdirSync(directory, { recursive: true });
  }

  clock(name: string): FakeClock {
    const path = join(this.directory, name);
    const step = (seconds: number) => {
      writeFileSync(`${path}.new`, `${seconds < 0 ? "" : "+"}${seconds}\n`);
      renameSync(`${path}.new`, path);
    };
    step(0);
    const env = {
      LD_PRELOAD: this.library,
      FAKETIME_TIMESTAMP_FILE: path,
      FAKETIME_CACHE_DURATION: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      FAKETIME_DONT_RESET: "1",
    };
    return { env, step };
  }
}
