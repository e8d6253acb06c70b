/** The directory cannot be packed; the message names what, why, and what to do. */
export class PackError extends Error {
  override readonly name = "PackError";
}

/** What to do about a file that somebody writes to while it is packed. */
const tryAgain = "try again when nothing writes to it, or list it in .warrenignore";

export function changed(name: string, how: string): PackError {
  return new PackError(`${name} ${how} while the directory was packed: ${tryAgain}`);
}

/** An error of the file system about one entry, in words. */
export function unreadable(name: string, error: unknown): PackError {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ENOENT" && name.includes("\uFFFD"))
    return new PackError(`${name} has a name that is not UTF-8: rename it, or remove it`);
  if (code === "ENOENT") return changed(name, "vanished");
  if (code === "ELOOP" || code === "ENXIO") return changed(name, "became something else than a file");
  if (code === "EACCES" || code === "EPERM") {
    return new PackError(
      `${name} cannot be read (permission denied): change its mode, or list it in .warrenignore`,
    );
  }
  return new PackError(`${name} cannot be read: ${message}`);
}
