// Writes a volume as a tar to stdout, as it is at one moment. Run by Bun as the tenant's own user, so that nothing in the
// files can reach further than the tenant could; alone, without anything beside it. SQLite databases are copied by SQLite
// itself (VACUUM INTO), write-ahead log and all, so that one that is being written to comes out consistent.
//
//     bun snapshot.script.js DATA STAGING MOST-BYTES
import { Database } from "bun:sqlite";
import {
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

const [data, staging, mostBytes] = process.argv.slice(2);
let total = 0;
const block = 512;
const chunk = Buffer.alloc(256 * 1024);
const sleeper = new Int32Array(new SharedArrayBuffer(4));

function write(bytes) {
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(sleeper, 0, 0, 2);
    }
  }
}

/** A header in the ustar format; the name is at most 100 bytes. */
function header(name, { mode = 0o600, size = 0, mtime = 0, type = "0", linkname = "" }) {
  const head = Buffer.alloc(block);
  head.write(name, 0, 100);
  head.write(`${(mode & 0o777).toString(8).padStart(7, "0")}\0`, 100);
  head.write("0000000\0".repeat(2), 108);
  head.write(`${(size < 8 ** 11 ? size : 0).toString(8).padStart(11, "0")}\0`, 124);
  head.write(`${Math.max(0, Math.floor(mtime)).toString(8).padStart(11, "0")}\0`, 136);
  head.write("        ", 148);
  head.write(type, 156);
  head.write(linkname, 157, 100);
  head.write("ustar\x0000", 257);
  const sum = head.reduce((all, byte) => all + byte, 0);
  head.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return head;
}

const padding = (size) => Buffer.alloc((block - (size % block)) % block);

function paxRecord(key, value) {
  const rest = ` ${key}=${value}\n`;
  let length = Buffer.byteLength(rest) + 1;
  while (`${length}`.length + Buffer.byteLength(rest) !== length)
    length = `${length}`.length + Buffer.byteLength(rest);
  return `${length}${rest}`;
}

/** What does not fit into the old header goes before it. */
function entry(name, facts) {
  const short = (text) => Buffer.byteLength(text) < 100 && /^[\x20-\x7e]*$/.test(text);
  let extra = short(name) ? "" : paxRecord("path", name);
  if (facts.linkname && !short(facts.linkname)) extra += paxRecord("linkpath", facts.linkname);
  if (facts.size >= 8 ** 11) extra += paxRecord("size", facts.size);
  if (extra) {
    const body = Buffer.from(extra);
    write(Buffer.concat([header("pax", { type: "x", size: body.length }), body, padding(body.length)]));
  }
  write(
    header(short(name) ? name : "long", {
      ...facts,
      linkname: short(facts.linkname ?? "") ? facts.linkname : "",
    }),
  );
}

/** One that grows or shrinks meanwhile is told with the length that it had: what is missing is zeros. */
function file(name, path, stat) {
  total += stat.size;
  if (total > Number(mostBytes))
    throw new Error(`its files are more than ${mostBytes} bytes long together, holes in them included`);
  const fd = openSync(path, "r");
  try {
    entry(name, { mode: stat.mode, size: stat.size, mtime: stat.mtimeMs / 1000 });
    for (let left = stat.size; left > 0; ) {
      const read = readSync(fd, chunk, 0, Math.min(left, chunk.length), null);
      const bytes = read > 0 ? chunk.subarray(0, read) : Buffer.alloc(Math.min(left, chunk.length));
      write(bytes);
      left -= bytes.length;
    }
    write(padding(stat.size));
  } finally {
    closeSync(fd);
  }
}

const magic = "SQLite format 3\0";

/** The first bytes of a SQLite database, or nothing. */
function sqliteHead(path, stat) {
  if (stat.size < 100) return undefined;
  const head = Buffer.alloc(20);
  const fd = openSync(path, "r");
  try {
    readSync(fd, head, 0, head.length, 0);
  } finally {
    closeSync(fd);
  }
  return head.toString("latin1", 0, 16) === magic ? head : undefined;
}

/** The copy's path, or nothing where SQLite cannot read it: then its bytes are taken as they are. */
function copyDatabase(path, head) {
  const copy = join(staging, "database");
  let db;
  try {
    db = new Database(path, { create: false, readwrite: true });
    db.run("PRAGMA busy_timeout = 20000");
    db.run("VACUUM INTO ?", [copy]);
    db.close();
    db = new Database(copy, { create: false, readwrite: true });
    if (head[18] === 2) db.run("PRAGMA journal_mode = WAL"); // which the copy has forgotten
    db.close();
    return copy;
  } catch (error) {
    try {
      db?.close();
    } catch {}
    if (`${error.code}`.startsWith("SQLITE_BUSY")) throw error; // as it is it would be torn
    process.stderr.write(`${path}: ${error.message}: its bytes are taken as they are\n`);
    return undefined;
  }
}

const gone = (error) => error.code === "ENOENT";

function walk(directory, below) {
  const names = readdirSync(directory).sort();
  const databases = new Set();
  for (const name of names) {
    // Beside a database that SQLite has copied they say nothing.
    const main = /^(.*)-(?:wal|shm|journal)$/.exec(name)?.[1];
    if (main !== undefined && databases.has(main)) continue;
    const path = join(directory, name);
    try {
      const stat = lstatSync(path);
      const facts = { mode: stat.mode, mtime: stat.mtimeMs / 1000, size: 0 };
      if (stat.isDirectory()) {
        entry(`${below}${name}/`, { ...facts, type: "5" });
        walk(path, `${below}${name}/`);
      } else if (stat.isSymbolicLink()) {
        entry(`${below}${name}`, { ...facts, type: "2", linkname: readlinkSync(path) });
      } else if (stat.isFile()) {
        const head = sqliteHead(path, stat);
        const copy = head && copyDatabase(path, head);
        if (copy === undefined) file(`${below}${name}`, path, stat);
        else {
          databases.add(name);
          file(`${below}${name}`, copy, { ...lstatSync(copy), mode: stat.mode, mtimeMs: stat.mtimeMs });
          for (const suffix of ["", "-wal", "-shm"]) {
            try {
              unlinkSync(copy + suffix);
            } catch {}
          }
        }
      }
    } catch (error) {
      if (!gone(error)) throw error; // it went meanwhile: it is not in the copy
    }
  }
}

walk(data, "");
write(Buffer.alloc(2 * block));
