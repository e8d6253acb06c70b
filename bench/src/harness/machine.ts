/** On what it was measured: figures without it compare with nothing. */
import { cpus, loadavg, release, totalmem } from "node:os";
import { mib } from "./table.ts";

export function describeMachine(): string {
  const cores = cpus();
  return [
    `Bun ${Bun.version}`,
    `Linux ${release()}`,
    `${cores.length} × ${cores[0]?.model ?? "unknown processor"}`,
    `${mib(totalmem())} MiB`,
    `load ${loadavg()[0]!.toFixed(2)} before`,
  ].join(", ");
}
