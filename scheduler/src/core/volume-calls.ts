/** Removing, restoring and backing up a volume because somebody asks. */
import { VolumeChange } from "@warren/proto/common";
import { startBackup } from "./backups.ts";
import type { Context } from "./context.ts";
import type { HeldVolume } from "./model.ts";
import { crowded, type Refusal } from "./refusal.ts";
import { displace, leaveVolume, usersOf, volumeChanged, volumesOf } from "./volumes.ts";

interface Asked {
  readonly call: string;
  readonly tenant: string;
  readonly name: string;
}

function found(ctx: Context, { call, tenant, name }: Asked): HeldVolume | undefined {
  const held = volumesOf(ctx.state, tenant).get(name);
  if (!held) ctx.emit({ type: "refuse", call, refusal: { kind: "no-volume", tenant, name } });
  return held;
}

/** That it is in use, or that its node cannot be told, and what to do. */
function inTheWay(ctx: Context, held: HeldVolume, what: string): Refusal | undefined {
  const { tenant, name } = held.record;
  const refused = (message: string): Refusal => ({ kind: "volume", tenant, name, message });
  const [user] = usersOf(ctx.state, held.record);
  if (user)
    return refused(
      `instance ${user.ref.id} has it: stop the tenant first ('warren stop ${tenant}'), then ${what}`,
    );
  if (held.task)
    return refused(
      `it is just being ${held.task === "removal" ? "removed" : "backed up"}: try again shortly`,
    );
  return undefined;
}

export function removeVolume(ctx: Context, asked: Asked): void {
  const held = found(ctx, asked);
  if (!held) return;
  const { call } = asked;
  const { node: name, tenant, id } = held.record;
  const node = ctx.state.nodes.get(name);
  const refusal = inTheWay(ctx, held, "remove it");
  if (refusal) {
    ctx.emit({ type: "refuse", call, refusal });
    return;
  }
  if (name === "" || id === "") {
    volumeRemoved(ctx, { call, tenant, name: asked.name, id });
    return;
  }
  if (!node?.confirmed || node.lost) {
    const message = `its node ${name} does not report: bring it back, or 'warren forget ${name}' if it is gone for good`;
    ctx.emit({ type: "refuse", call, refusal: { kind: "volume", tenant, name: asked.name, message } });
    return;
  }
  held.task = "removal";
  ctx.emit({ type: "remove-volume", call, tenant, name: asked.name, id, agentUrl: node.agentUrl });
}

/** Its node has removed it, or could not. */
export function volumeRemoved(
  ctx: Context,
  { call, tenant, name, id, error }: Asked & { readonly id: string; readonly error?: string },
): void {
  const held = volumesOf(ctx.state, tenant).get(name);
  if (held?.record.id !== id) {
    // Its node was forgotten meanwhile, or it goes with its tenant, and nobody waits.
    if (held) held.task = undefined;
    const message = "it has lost its node meanwhile: ask again";
    if (call) ctx.emit({ type: "refuse", call, refusal: { kind: "volume", tenant, name, message } });
    return;
  }
  held.task = undefined;
  if (error !== undefined) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "volume", tenant, name, message: error } });
    return;
  }
  ctx.state.nodes.get(held.record.node)?.copies?.delete(id);
  forgetVolume(ctx, held, call);
}

/** Its record and its backups: their bytes are named by nothing then, and are collected. */
export function forgetVolume(ctx: Context, held: HeldVolume, call?: string): void {
  const { tenant, name } = held.record;
  leaveVolume(ctx.state, held.record);
  removeCopies(ctx, tenant, name);
  volumeChanged(ctx, held.record, VolumeChange.REMOVED, { message: "it was removed with its backups" });
  const write = { kind: "volume-gone", tenant, name } as const;
  if (call === undefined) ctx.emit({ type: "persist", write });
  else {
    ctx.emit({
      type: "persist",
      write,
      durable: { type: "volume-durable", call },
      failed: { type: "not-durable", call, message: "the store did not take the removal" },
    });
  }
  for (const waiting of held.calls) {
    ctx.emit({ type: "refuse", call: waiting, refusal: { kind: "no-volume", tenant, name } });
  }
}

/** Its tenant was deleted, and they were to go with it. What a node that does not report holds stays there, left over. */
export function removeVolumesOf(ctx: Context, tenant: string): void {
  for (const held of [...volumesOf(ctx.state, tenant).values()]) {
    const { name, id, node: where } = held.record;
    const node = ctx.state.nodes.get(where);
    forgetVolume(ctx, held);
    // Of which its node has not told anything yet.
    if (node?.confirmed && !node.lost && id !== "" && !node.copies?.has(id))
      ctx.emit({ type: "remove-volume", call: "", tenant, name, id, agentUrl: node.agentUrl });
  }
}

/** All that nodes that report still hold of it, left over ones too. */
function removeCopies(ctx: Context, tenant: string, name: string): void {
  for (const node of ctx.state.roster) {
    if (!node.confirmed || node.lost) continue;
    for (const { volume: id, ...copy } of node.copies?.values() ?? []) {
      if (copy.tenant === tenant && copy.name === name)
        ctx.emit({ type: "remove-volume", call: "", tenant, name, id, agentUrl: node.agentUrl });
    }
  }
}

/** The next start brings a backup back, in a new copy: the one that there is stays where it lies, left over. */
export function restoreVolume(ctx: Context, asked: Asked & { readonly backup: string }): void {
  const held = found(ctx, asked);
  if (!held) return;
  const { call, tenant, name, backup: id } = asked;
  const { backups } = held.record;
  const backup = id === "" ? backups[0] : backups.find((one) => one.id === id);
  const refusal: Refusal | undefined = backup
    ? inTheWay(ctx, held, "restore it")
    : {
        kind: "volume",
        tenant,
        name,
        message:
          id === ""
            ? "there is no backup of it"
            : `there is no backup ${id} of it ('warren volumes ${tenant} --json' lists them)`,
      };
  if (refusal || !backup) {
    if (refusal) ctx.emit({ type: "refuse", call, refusal });
    return;
  }
  displace(ctx, held, backup.id, backup, "a restore was asked for");
  ctx.emit({ type: "answer", call, answer: { kind: "backup", backup, unchanged: false } });
}

export function backUpVolume(ctx: Context, asked: Asked): void {
  const held = found(ctx, asked);
  if (!held) return;
  const { call, tenant, name } = asked;
  const refusal = crowded(held.calls, `backups of volume ${name} of tenant ${tenant}`, ctx.config);
  if (refusal) {
    ctx.emit({ type: "refuse", call, refusal });
    return;
  }
  const node = ctx.state.nodes.get(held.record.node);
  if (!held.record.made || !node?.confirmed || node.lost || held.task === "removal") {
    const message = held.record.made
      ? `its node ${held.record.node} does not report, or it is being removed`
      : "there is nothing in it yet: its tenant was not started with it";
    ctx.emit({ type: "refuse", call, refusal: { kind: "volume", tenant, name, message } });
    return;
  }
  held.calls.push(call);
  if (!held.task) startBackup(ctx, held, node);
}
