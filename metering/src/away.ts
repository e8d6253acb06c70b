/** A ledger whose database is away, for callers. */
import { Code, rpcError } from "@warren/common/rpc/errors";
import { StoreUnavailableError } from "@warren/store";

/** What callers are told of it: UNAVAILABLE where the ledger's database is away. */
export function asRpcError(error: unknown): unknown {
  return error instanceof StoreUnavailableError ? rpcError(Code.Unavailable, error.message) : error;
}
