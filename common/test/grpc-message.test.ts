import { expect, test } from "bun:test";
import { plainGrpcMessage } from "../src/rpc/grpc-message.ts";

test("punctuation goes as it is; what the protocol encodes is encoded", () => {
  const plain = (text: string) => plainGrpcMessage(encodeURIComponent(text));
  expect(plain('no tenant "x": deploy it, or look at /a?b=c#d')).toBe(
    'no tenant "x": deploy it, or look at /a?b=c#d',
  );
  expect(plain("50 % at x%3A\nüber\u007f")).toBe("50 %25 at x%253A%0A%C3%BCber%7F");
  expect(plainGrpcMessage("100 %")).toBe("100 %");
});

test("any message comes out of it as it went in, for grpc-js and for Connect", () => {
  const everyAscii = String.fromCharCode(...Array.from({ length: 128 }, (_, code) => code));
  for (const text of ["", everyAscii, "%", "%25%", "%zz", "äöü 日本 🐇", "a\r\nb"]) {
    const sent = plainGrpcMessage(encodeURIComponent(text));
    expect(sent).toMatch(/^[\x20-\x7e]*$/);
    expect(decodeURI(sent)).toBe(text);
    expect(decodeURIComponent(sent)).toBe(text);
  }
});
