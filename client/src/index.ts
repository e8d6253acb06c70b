export { type Credentials, CredentialsError, loadCredentials } from "@warren/common/rpc/credentials";
export { Code, ConnectError, detailOf, isRpcCode } from "@warren/common/rpc/errors";
export * from "@warren/proto/common";
export { type Listing, PackError, type PackOptions, pack } from "./pack.ts";
export {
  type EventsOptions,
  type LogsOptions,
  type UploadOptions,
  Warren,
  type WarrenOptions,
} from "./warren.ts";
