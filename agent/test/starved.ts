/** Run by starvation.test.ts with few file descriptors: takes them all, and says what the readers answer then. */
import { closeSync, openSync } from "node:fs";
import { GroupDirectory } from "../src/host/cgroupfs.ts";
import { HotFile } from "../src/host/hot-file.ts";
import { linuxKernel } from "../src/host/linux.ts";

const kernel = linuxKernel();
const path = process.argv[2]!;
const readers: Record<string, () => unknown> = {
  stat: () => kernel.read(process.pid)?.pid,
  environ: () => kernel.environ(process.pid, "PATH"),
  list: () => kernel.list().length,
  ownerOf: () => kernel.ownerOf(Number(process.argv[3]), [process.pid]).kind,
  connectionsTo: () => kernel.connectionsTo(Number(process.argv[3])),
  group: () => new GroupDirectory(path).read("cgroup.procs"),
  children: () => new GroupDirectory(path).children().length,
  hot: () => new HotFile(`${path}/cgroup.procs`).read(),
};
const taken: number[] = [];
try {
  for (;;) taken.push(openSync("/dev/null", "r"));
} catch {
  // none is left
}
const answers = Object.entries(readers).map(([name, read]) => {
  try {
    return [name, String(read())];
  } catch (error) {
    return [name, (error as NodeJS.ErrnoException).code];
  }
});
for (const fd of taken) closeSync(fd);
console.log(JSON.stringify(Object.fromEntries(answers)));
