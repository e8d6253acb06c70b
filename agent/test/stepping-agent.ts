// An agent whose wall clock is set: SIGUSR1 sets it back by two hours, SIGUSR2 ahead by three.
const right = Date.now;
let offMs = 0;
Date.now = () => right() + offMs;
process.on("SIGUSR1", () => {
  offMs -= 2 * 3_600_000;
});
process.on("SIGUSR2", () => {
  offMs += 3 * 3_600_000;
});
await import("./agent-process.ts");
