/** A REST service of notes, as a tenant would write it: Hono for the routes, zod for what comes in. */
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import type { z } from "zod";
import { noteInput, notePatch, pageQuery } from "./schema.ts";
import { NoteStore, StoreFullError } from "./store.ts";

const notes = new NoteStore(10_000);
const app = new Hono();

app.get("/healthz", (c) => c.text("ok"));

app.get("/notes", (c) => {
  const { after, limit, tag } = checked(pageQuery, c.req.query());
  return c.json(notes.list({ after, limit, tag }));
});

app.post("/notes", async (c) => {
  const note = notes.add(checked(noteInput, await body(c.req.raw)));
  return c.json(note, 201, { Location: `/notes/${note.id}` });
});

app.get("/notes/:id", (c) => {
  const note = notes.get(c.req.param("id"));
  return note ? c.json(note) : missing();
});

app.patch("/notes/:id", async (c) => {
  const note = notes.change(c.req.param("id"), checked(notePatch, await body(c.req.raw)));
  return note ? c.json(note) : missing();
});

app.delete("/notes/:id", (c) => (notes.remove(c.req.param("id")) ? c.body(null, 204) : missing()));

app.notFound((c) => c.json({ error: "not-found", message: `no ${c.req.method} ${c.req.path} here` }, 404));

app.onError((error, c) => {
  if (error instanceof HTTPException) return error.getResponse();
  if (error instanceof StoreFullError) return c.json({ error: "full", message: error.message }, 507);
  console.error(error);
  return c.json({ error: "internal", message: "something went wrong here" }, 500);
});

function checked<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issues = result.error.issues.map(({ path, message }) => ({ path: path.join("."), message }));
  throw failed(422, { error: "invalid", message: "the request does not hold what it should", issues });
}

async function body(request: Request): Promise<unknown> {
  try {
    return await request.json();
  } catch {
    throw failed(400, { error: "not-json", message: "the body is not JSON" });
  }
}

function missing(): never {
  throw failed(404, { error: "not-found", message: "no such note" });
}

function failed(status: 400 | 404 | 422, answer: object): HTTPException {
  return new HTTPException(status, { res: Response.json(answer, { status }) });
}

const server = Bun.serve({
  hostname: process.env.HOST ?? "127.0.0.1",
  port: Number(process.env.PORT ?? 3000),
  fetch: app.fetch,
});

console.log(`api listens on ${server.url}`);
