/** Whether something on this host accepts connections. */

/** Whether a connection to the address is accepted. Never throws. */
export async function accepts(address: string, port: number, withinMs: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), withinMs);
  Bun.connect({
    hostname: address,
    port,
    socket: {
      open(socket) {
        resolve(true);
        socket.terminate();
      },
      data() {},
      connectError: () => resolve(false),
    },
  }).catch(() => resolve(false));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}
