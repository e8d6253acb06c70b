/**
 * Errors between processes: Connect/gRPC codes with typed details.
 *
 * FACTS: a killed server or a refused certificate shows as Canceled, GOAWAY as Internal, a refused connection over
 * fetch as Unknown. {@link fromTransport} puts that right, so that callers can believe the code.
 */
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { DeadlineError } from "../time.ts";

export { Code, ConnectError } from "@connectrpc/connect";

/** A typed detail to ride on an error. */
export interface Detail<D extends DescMessage = DescMessage> {
  readonly schema: D;
  readonly value: MessageInitShape<D>;
}

/** Pairs a schema with a value, so that the compiler checks them. */
export function detail<D extends DescMessage>(schema: D, value: MessageInitShape<D>): Detail<D> {
  return { schema, value };
}

/** An error to throw from a handler. The message is for a person: what was wrong, and what to do. */
// biome-ignore lint/suspicious/noExplicitAny: details of any schema may ride together; each pair was checked by `detail`
export function rpcError(code: Code, message: string, ...details: Detail<any>[]): ConnectError {
  return new ConnectError(
    message,
    code,
    undefined,
    details.map((d) => ({ desc: d.schema, value: d.value })),
  );
}

export function isRpcCode(error: unknown, ...codes: Code[]): boolean {
  return error instanceof ConnectError && codes.includes(error.code);
}

/** The first detail of that type, if the error carries one. */
export function detailOf<D extends DescMessage>(error: unknown, schema: D): MessageShape<D> | undefined {
  return error instanceof ConnectError ? error.findDetails(schema)[0] : undefined;
}

const lostConnection =
  /ECONNREFUSED|ECONNRESET|EPIPE|ENOTFOUND|ETIMEDOUT|EHOSTUNREACH|GOAWAY|Session closed|session has been destroyed|socket hang up|ConnectionRefused|Unable to connect|closed unexpectedly|ERR_HTTP2|ERR_STREAM_PREMATURE_CLOSE|connection (?:lost|closed)|ping timed? ?out|NGHTTP2|http\/2 stream closed|operation timed out/i;
const unsent =
  /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ConnectionRefused|Unable to connect/;
const badCertificate =
  /certificate|self.signed|UNABLE_TO_VERIFY|UNABLE_TO_GET_ISSUER|DEPTH_ZERO|ERR_TLS|ALTNAME/i;
/** Under any other code it is a server that speaks, of certificates or not. */
const transportCodes = new Set([Code.Canceled, Code.Unknown, Code.Internal, Code.Unavailable, Code.Aborted]);

/**
 * What went wrong, by its real code.
 * @param weAborted whether the caller's own signal ended the call
 */
export function fromTransport(error: unknown, url: string, weAborted: boolean): ConnectError {
  const e =
    error instanceof DeadlineError
      ? new ConnectError(error.message, Code.DeadlineExceeded)
      : ConnectError.from(error);
  if (weAborted) return e;
  const text = causes(e);
  if (badCertificate.test(text) && transportCodes.has(e.code)) {
    return new ConnectError(
      `${url} shows a certificate that this cell's CA did not sign (or for another name): is it the right server, and is ca.crt of the same cell? (${e.rawMessage})`,
      Code.Unavailable,
      undefined,
      undefined,
      e,
    );
  }
  const transient = e.code === Code.Canceled || lostConnection.test(text);
  const mapped = [Code.Canceled, Code.Internal, Code.Unknown, Code.Aborted, Code.Unavailable];
  if (transient && mapped.includes(e.code) && e.details.length === 0) {
    return new ConnectError(
      `${url} cannot be reached: ${e.rawMessage}`,
      Code.Unavailable,
      undefined,
      undefined,
      e,
    );
  }
  return e;
}

/** Whether the connection was lost or never came about: what became of the call is not known. */
export function wasNotAnswered(error: unknown): boolean {
  return isRpcCode(error, Code.Unavailable) && (error as ConnectError).cause instanceof ConnectError;
}

/** Whether the server may be hung: it said nothing in time, or stopped to answer pings. */
export function wasSilent(error: unknown): boolean {
  return (
    isRpcCode(error, Code.DeadlineExceeded) ||
    (wasNotAnswered(error) && /ping timed out/i.test(causes(error)))
  );
}

/** Whether no connection came about, so that the server has certainly seen nothing of the call. */
export function wasNeverSent(error: unknown): boolean {
  if (!isRpcCode(error, Code.Unavailable)) return false;
  const text = causes(error);
  return unsent.test(text) || badCertificate.test(text);
}

/** The messages and codes of an error and of what caused it, at most 8 deep. */
function causes(error: unknown): string {
  let text = "";
  for (let e: unknown = error, depth = 0; e instanceof Error && depth < 8; e = e.cause, depth++) {
    text += `${(e as NodeJS.ErrnoException).code ?? ""} ${e.message}\n`;
  }
  return text;
}
