/**
 * A port that speaks TLS and says so to who does not: the first byte tells which it is. TLS goes to the TLS server with
 * nothing taken from it; plain HTTP is answered with 400 and the URL that works, instead of a connection that just ends.
 * (`tlsClientError` comes too late: Bun has closed the socket by then.)
 */
import type { Http2SecureServer } from "node:http2";
import { createServer, type Server, type Socket } from "node:net";

/** The first byte of a TLS record with a ClientHello. */
const handshake = 0x16;
const upperA = 0x41;
const upperZ = 0x5a;

/**
 * @param server gets the connections that begin as TLS does; it does not listen itself
 * @param url of a request that names no host
 */
export function tlsPort(server: Http2SecureServer, url: () => string): Server {
  return createServer({ noDelay: true }, (socket) => {
    // Who opens a connection may reset it before it has said what it is.
    socket.on("error", () => socket.destroy());
    socket.once("data", (first: Buffer) => {
      if (first[0] === handshake) {
        socket.pause();
        socket.unshift(first);
        server.emit("connection", socket);
      } else refuse(socket, first, url);
    });
  });
}

function refuse(socket: Socket, first: Buffer, url: () => string): void {
  const isHttp = first[0]! >= upperA && first[0]! <= upperZ; // each method begins so, and HTTP/2's preface
  if (!isHttp) {
    socket.destroy();
    return;
  }
  socket.resume(); // what is not read would be answered by a reset, which takes the answer along
  socket.end(plainAnswer(first.toString("latin1"), url()));
}

/** What plain HTTP hears. @param request as much of it as came first */
export function plainAnswer(request: string, url: string): string {
  const host = /^host:[ \t]*([\w.:[\]-]{1,255})[ \t]*\r?$/im.exec(request)?.[1];
  const text = `this port speaks TLS: ${host ? `https://${host}` : url}\n`;
  return `HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`;
}
