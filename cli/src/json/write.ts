/** Writes docs/json.md; part of `make gen`. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { commentsOf } from "./comments.ts";
import { outputs } from "./outputs.ts";
import { jsonPage } from "./page.ts";
import { generatedSources } from "./sources.ts";

writeFileSync(
  join(import.meta.dir, "../../../docs/json.md"),
  jsonPage(outputs, commentsOf(generatedSources())),
);
