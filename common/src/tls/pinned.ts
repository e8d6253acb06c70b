/** A server's CA, known by its fingerprint alone: taken from the handshake, before anything is sent. */
import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { connect, type DetailedPeerCertificate, type TLSSocket } from "node:tls";
import { Code, rpcError } from "../rpc/errors.ts";
import { PemConverter } from "./x509.ts";

/** The server belongs to another CA than it should: another cell's, or somebody in between. */
export class PinError extends Error {
  override readonly name = "PinError";
}

/** Certificates of a chain that are looked at: a cell's has two. */
const mostInChain = 4;

/**
 * The certificate (PEM) of the CA with that fingerprint, which the server at `url` shows in its chain. That the server
 * has the key to its own certificate, and that this CA signed it, is for the connection to verify which is made with it.
 * @param fingerprint sha256 of the CA's certificate, hex
 * @throws PinError when it shows another; ConnectError UNAVAILABLE when it cannot be reached in time
 */
export async function pinnedCa(url: string, fingerprint: string, deadlineMs: number): Promise<string> {
  const { hostname, port } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, "");
  const socket = connect({
    host,
    port: Number(port || 443),
    servername: isIP(host) ? "" : host,
    ALPNProtocols: ["h2"],
    minVersion: "TLSv1.3",
    rejectUnauthorized: false, // the fingerprint decides instead; nothing is sent on this connection
  });
  try {
    for (const der of await chainOf(socket, url, deadlineMs)) {
      if (createHash("sha256").update(der).digest("hex") === fingerprint)
        return PemConverter.encode(new Uint8Array(der).buffer, "CERTIFICATE");
    }
  } finally {
    socket.destroy();
  }
  throw new PinError(
    `${url} does not belong to the cell of this join token (its CA is another): is it the right server? Nothing was sent to it`,
  );
}

function chainOf(socket: TLSSocket, url: string, deadlineMs: number): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    const failed = (why: string) => reject(rpcError(Code.Unavailable, `${url} cannot be reached: ${why}`));
    const timer = setTimeout(() => failed(`no TLS handshake within ${deadlineMs} ms`), deadlineMs);
    socket.on("error", (error) => failed(error.message)); // stays: one may come after the handshake too
    socket.once("close", () => {
      clearTimeout(timer);
      failed("it closed the connection");
    });
    socket.once("secureConnect", () => {
      clearTimeout(timer);
      const chain: Buffer[] = [];
      let certificate: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true);
      while (certificate?.raw && chain.length < mostInChain) {
        chain.push(certificate.raw);
        const issuer: DetailedPeerCertificate | undefined = certificate.issuerCertificate;
        certificate = issuer === certificate ? undefined : issuer;
      }
      resolve(chain);
    });
  });
}
