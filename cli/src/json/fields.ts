/** Fields that many verbs print. */
import { z } from "zod";

export const text = (about: string) => z.string().describe(about);
export const count = (about: string) => z.number().int().min(0).describe(about);
export const flag = (about: string) => z.boolean().describe(about);
export const texts = (about: string) => z.array(z.string()).describe(about);
export const done = <T extends string | true>(value: T) =>
  z.literal(value).describe("always this: it is done");

export const tenant = text("its key");
export const version = count("version of the tenant's spec");
export const replaced = count("live instances that were replaced");
export const node = text("name of the node");
export const volume = text("name of the volume");
export const url = text("where it answers; empty for one that serves no HTTP");
export const directory = text("path");
