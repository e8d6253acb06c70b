/** The C library, for the few things that neither Bun nor /proc has. */
import { dlopen, type FFIFunction } from "bun:ffi";

const names = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"];

/** These functions; undefined where they cannot be had (another libc, no FFI in this build): callers do without. */
export function openLibc<Fns extends Record<string, FFIFunction>>(functions: Fns) {
  for (const name of names) {
    try {
      return dlopen(name, functions).symbols;
    } catch {
      // Not this system's libc: the next name is tried.
    }
  }
  return undefined;
}
