export { clone, create, fromJson, toJson } from "@bufbuild/protobuf";
export { type Credentials, CredentialsError, loadCredentials } from "@warren/common/rpc/credentials";
export { Code, ConnectError, detailOf, isRpcCode } from "@warren/common/rpc/errors";
export * from "@warren/proto/common";
export * from "@warren/proto/metering";
export * from "@warren/proto/scheduler";
export { type Listing, PackError, type PackOptions, pack } from "./pack.ts";
export { SpecError } from "./spec/error.ts";
export { parseSpec, plainSpec, specFromJson } from "./spec/from-json.ts";
export { cores, duration, size } from "./spec/quantities.ts";
export {
  type EventsOptions,
  type LogsOptions,
  type UploadOptions,
  Warren,
  type WarrenOptions,
} from "./warren.ts";
