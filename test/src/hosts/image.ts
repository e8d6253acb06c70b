/**
 * An image without a registry: a skeleton in which the host's /usr, Bun and this repository are mounted, at the places
 * where `deploy/Dockerfile` puts them, with its entry point.
 */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Docker } from "./docker.ts";

export const images = { warren: "warren-test", nats: "warren-test-nats" } as const;

const root = join(import.meta.dir, "..", "..", "..");

/** Read-only mounts that every container of these images needs. */
export const imageVolumes = ["/usr:/usr:ro", `${process.execPath}:/bun:ro`, `${join(root)}:/app:ro`] as const;

/** /sbin is a directory of its own: there Docker mounts its init. */
const directories = [
  "app",
  "credentials",
  "data",
  "dev",
  "etc",
  "proc",
  "root",
  "run",
  "sbin",
  "sys",
  "tmp",
  "usr",
];
const merged = ["bin", "lib", "lib64"];

export async function importImages(docker: Docker): Promise<void> {
  const tar = skeleton();
  await docker.importImage(images.warren, tar, [
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV WARREN_BUN=/bun",
    'ENTRYPOINT ["/app/cli/bin/warren"]',
  ]);
  await docker.importImage(images.nats, tar, ['ENTRYPOINT ["/usr/sbin/nats-server"]']);
}

function skeleton(): Uint8Array {
  const directory = mkdtempSync(join(tmpdir(), "warren-skeleton-"));
  try {
    for (const name of directories) mkdirSync(join(directory, name));
    for (const name of merged) symlinkSync(`usr/${name}`, join(directory, name));
    mkdirSync(join(directory, "var", "lib", "warren"), { recursive: true });
    writeFileSync(join(directory, "bun"), "");
    writeFileSync(join(directory, "etc", "passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    writeFileSync(join(directory, "etc", "group"), "root:x:0:\n");
    const { stdout, exitCode, stderr } = Bun.spawnSync([
      "tar",
      "-C",
      directory,
      "--owner=0",
      "--group=0",
      "-c",
      ".",
    ]);
    if (exitCode !== 0) throw new Error(`tar: ${stderr.toString()}`);
    return stdout;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
