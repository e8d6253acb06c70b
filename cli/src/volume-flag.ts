/** Volumes as people write them: "data:data", "data:/data:5GiB". */
import { create } from "@bufbuild/protobuf";
import { parseSize } from "@warren/common/config";
import { type Volume, VolumeSchema } from "@warren/proto/common";
import { UserError } from "./exit.ts";

/** @throws UserError naming what can be said */
export function parseVolume(text: string): Volume {
  const [name, path, size, ...more] = text.split(":");
  const bytes = size === undefined ? 0 : parseSize(size);
  if (!name || !path || bytes === undefined || more.length > 0 || (size !== undefined && bytes === 0)) {
    throw new UserError(
      `--volume ${text}: must be NAME:PATH or NAME:PATH:SIZE, like data:data or uploads:/data:5GiB`,
    );
  }
  return create(VolumeSchema, { name, path, sizeBytes: BigInt(bytes) });
}
