/**
 * Error messages of gRPC as its protocol says: percent-encoded is only what is not printable ASCII, and "%" itself. Connect
 * encodes ":", "/" and more as well, which grpc-js does not decode: "no tenant x%3A deploy it".
 */
import type { OutgoingHttpHeaders, ServerResponse } from "node:http";
import type { Http2ServerResponse } from "node:http2";

/** @param encoded by encodeURIComponent */
export function plainGrpcMessage(encoded: string): string {
  let text: string;
  try {
    text = decodeURIComponent(encoded);
  } catch {
    return encoded; // encoded by somebody else
  }
  const hex = (byte: number) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return text.replaceAll(/[^\x20-\x24\x26-\x7e]+/g, (part) =>
    [...new TextEncoder().encode(part)].map(hex).join(""),
  );
}

/** From here on its trailers carry messages like that. */
export function withPlainGrpcMessage(response: Http2ServerResponse | ServerResponse): void {
  const add = response.addTrailers.bind(response) as (trailers: OutgoingHttpHeaders) => void;
  response.addTrailers = (trailers: OutgoingHttpHeaders) => {
    const message = trailers["grpc-message"];
    add(typeof message === "string" ? { ...trailers, "grpc-message": plainGrpcMessage(message) } : trailers);
  };
}
