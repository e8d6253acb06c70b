/** Times that a caller named. What stands in an event must be one that JSON and RFC 3339 can write. */
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { fromTimestamp } from "@warren/common/time";

const earliest = Date.UTC(1970);
const latest = Date.UTC(9999, 11, 31, 23, 59, 59);

/**
 * @returns ms since 1970; 0 where there is none
 * @throws ConnectError INVALID_ARGUMENT naming the field
 */
export function askedTime(timestamp: Timestamp | undefined, field: string): number {
  const ms = fromTimestamp(timestamp, 0);
  const nanos = timestamp?.nanos ?? 0;
  if (ms >= earliest && ms <= latest && nanos >= 0 && nanos < 1e9) return ms;
  throw rpcError(Code.InvalidArgument, `${field}: must be a time from 1970 to 9999`);
}
