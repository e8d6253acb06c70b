/** What comes in. */
import { z } from "zod";

const title = z.string().trim().min(1).max(200);
const text = z.string().max(10_000);
const tags = z.array(z.string().regex(/^[a-z0-9-]{1,32}$/, "a tag is 1 to 32 of a-z, 0-9 and '-'")).max(16);

export const noteInput = z.strictObject({ title, text: text.default(""), tags: tags.default([]) });

export const notePatch = z
  .strictObject({ title, text, tags })
  .partial()
  .refine((patch) => Object.keys(patch).length > 0, "nothing to change");

export const pageQuery = z.object({
  after: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(100).default(20),
  tag: z.string().optional(),
});

export type NoteInput = z.output<typeof noteInput>;
export type NotePatch = z.output<typeof notePatch>;
