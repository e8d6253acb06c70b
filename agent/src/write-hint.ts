/** What an app is told that failed because it wrote where nothing may be written: the places that it may write to. Pure. */

const hint =
  "it could not write: a release is read-only, and only HOME and TMPDIR can be written to, which go with the instance; " +
  "name a directory in the spec's `writable` to write to it while the instance lives, or in `volumes` to keep what is in it";

/** Whatever the path: nothing else is mounted read-only, and databases are opened to be written to. */
const always = [
  /\bEROFS\b|read-only file system/i,
  /\bSQLITE_(CANTOPEN|READONLY)/,
  /unable to open database file|attempt to write a readonly database/i,
];

const writing =
  "open|mkdir|mkdtemp|rename|unlink|rm|rmdir|copyfile|cp|link|symlink|truncate|ftruncate|write|chmod|utimes?";
/** As Bun and Node say it: "EACCES: permission denied, open 'data/app.db'"; and as Python does. */
const denied = new RegExp(`\\bEACCES\\b.*?\\b(?:${writing})\\b '([^']+)'`);
const missing = /\bENOENT\b.*?\bmkdir\b '([^']+)'/;
const python = /\[Errno 13\] Permission denied: '([^']+)'/;

/**
 * @param lines its last output
 * @param directory where it ran from, or "" where that is not known
 */
export function writeHint(lines: readonly string[], directory: string): string | undefined {
  const isInside = (path: string) =>
    !path.startsWith("/") || (directory !== "" && (path === directory || path.startsWith(`${directory}/`)));
  const tells = (line: string) =>
    always.some((pattern) => pattern.test(line)) ||
    [denied, missing, python].some((pattern) => {
      const path = pattern.exec(line)?.[1];
      return path !== undefined && isInside(path);
    });
  return lines.some(tells) ? hint : undefined;
}
