/**
 * Where tenants' volumes lie. A volume is given a place with its tenant's first placement, in the log ahead of that; from then
 * on the tenant is placed there (volume-filter.ts). It loses its place only when somebody vouches that its node is gone, or
 * asks for a backup to be restored; the next placement gives it another one, and the newest backup is brought there first.
 *
 *  W1  All copies of a tenant's volumes that are in use lie on one node.
 *  W2  What was made once is never silently begun anew: a start names it as one that must exist, or a backup to bring back.
 *  W3  A volume is removed only by RemoveVolume, or by DeleteTenant where that says so.
 */
import { clone, create } from "@bufbuild/protobuf";
import { volumeBytes } from "@warren/common/tenant-files";
import { fromTimestamp, toTimestamp } from "@warren/common/time";
import {
  type Backup,
  type StorageReport,
  type TenantSpec,
  type Volume,
  VolumeChange,
  VolumeChangedSchema,
  type VolumeState,
  VolumeStateSchema,
} from "@warren/proto/common";
import type { Context } from "./context.ts";
import type { StartVolume } from "./effects.ts";
import { type HeldVolume, type Instance, instancesOf, type Node, type State, specOf } from "./model.ts";

const none: ReadonlyMap<string, HeldVolume> = new Map();

export function volumesOf(state: State, tenant: string): ReadonlyMap<string, HeldVolume> {
  return state.volumes.get(tenant) ?? none;
}

export function* allVolumes(state: State): Iterable<HeldVolume> {
  for (const volumes of state.volumes.values()) yield* volumes.values();
}

/** Whether it must stay where it is: there is, or may be, something in it. */
export function isPinned({ record, attempted }: HeldVolume): boolean {
  return record.node !== "" && (record.made || attempted);
}

/** The node that the tenant's volumes lie on, if they lie anywhere (W1). */
export function homeOf(state: State, tenant: string): string | undefined {
  for (const held of volumesOf(state, tenant).values()) if (isPinned(held)) return held.record.node;
  return undefined;
}

/** What a placement must heed: of a spec without volumes nothing. */
export function wantedVolumes(
  state: State,
  tenant: string,
  { volumes }: TenantSpec,
): { home: string | undefined; isVolumeBusy: boolean } {
  if (volumes.length === 0) return { home: undefined, isVolumeBusy: false };
  const isVolumeBusy = [...volumesOf(state, tenant).values()].some(({ task }) => task === "removal");
  return { home: homeOf(state, tenant), isVolumeBusy };
}

/** Of a scheduler before this one: whether anything was started with it is not known. */
export function resumeVolumes(state: State, records: readonly VolumeState[]): void {
  for (const record of records)
    enterVolume(state, { record, attempted: record.node !== "", backupAt: 0, calls: [] });
}

function enterVolume(state: State, held: HeldVolume): void {
  const { tenant, name } = held.record;
  const volumes = state.volumes.get(tenant) ?? new Map<string, HeldVolume>();
  volumes.set(name, held);
  state.volumes.set(tenant, volumes);
}

export function leaveVolume(state: State, { tenant, name }: VolumeState): void {
  const volumes = state.volumes.get(tenant);
  volumes?.delete(name);
  if (volumes?.size === 0) state.volumes.delete(tenant);
}

/** Changes the record, in memory and in the log. */
export function patchVolume(ctx: Context, held: HeldVolume, change: Partial<VolumeState>): void {
  held.record = Object.assign(clone(VolumeStateSchema, held.record), change);
  ctx.emit({ type: "persist", write: { kind: "volume", record: held.record } });
}

/** The tenant is placed on this node, and with it the volumes that its spec names and that have no place yet. */
export function giveVolumes(ctx: Context, tenant: string, node: Node, spec: TenantSpec): void {
  for (const { name } of spec.volumes) {
    const held = volumesOf(ctx.state, tenant).get(name);
    if (!held) {
      const record = create(VolumeStateSchema, {
        tenant,
        name,
        id: ctx.newId(),
        node: node.name,
        createdAt: toTimestamp(ctx.at.wall),
      });
      enterVolume(ctx.state, { record, attempted: true, backupAt: 0, calls: [] });
      ctx.emit({ type: "persist", write: { kind: "volume", record } });
    } else if (!isPinned(held)) {
      if (held.record.node !== node.name || held.record.id === "")
        patchVolume(ctx, held, { node: node.name, id: ctx.newId() });
      held.attempted = true;
    }
  }
}

/** What an instance of this spec is started with. */
export function startVolumes(state: State, tenant: string, spec: TenantSpec): StartVolume[] {
  return spec.volumes.flatMap((volume) => {
    const { name } = volume;
    const record = volumesOf(state, tenant).get(name)?.record;
    if (!record) return [];
    const restore = record.backups.find(({ id }) => id === record.restore);
    return [{ name, id: record.id, mustExist: record.made, restore, maxBytes: backupBytes(volume) }];
  });
}

/**
 * What a backup may hold: a volume may be over its size for some seconds, and of a file with holes only what is written counts
 * for that, while a backup has all of it.
 */
export const backupBytes = (volume: Pick<Volume, "sizeBytes">): number => 2 * volumeBytes(volume);

/** Bringing backups back takes this much longer, in ms. */
export function restoreMs(volumes: readonly StartVolume[]): number {
  const perMs = 5_000; // bytes: 5 MB/s
  return volumes.reduce(
    (sum, { restore }) => (restore ? sum + 60_000 + Number(restore.bytes) / perMs : sum),
    0,
  );
}

/** Its node has made a process for it, and so its volumes are there. */
export function volumesMade(ctx: Context, { ref }: Instance): void {
  const tenant = ctx.state.tenants.get(ref.tenant);
  if (!tenant) return;
  for (const { name } of specOf(tenant, ref).volumes) {
    const held = volumesOf(ctx.state, ref.tenant).get(name);
    if (held?.record.node === ref.node) volumeMade(ctx, held);
  }
}

function volumeMade(ctx: Context, held: HeldVolume): void {
  const { made, backups, restore } = held.record;
  if (made) return;
  const restored = backups.find(({ id }) => id === restore);
  patchVolume(ctx, held, { made: true, restore: "", restoredAsOf: restored?.asOf });
  held.restoreError = undefined;
  if (restored) {
    volumeChanged(ctx, held.record, VolumeChange.RESTORED, {
      asOf: restored.asOf,
      message: `it is as it was ${ageText(ctx, restored)}; what was written since is lost`,
    });
  } else volumeChanged(ctx, held.record, VolumeChange.CREATED, { message: "it is empty" });
}

/** Nothing was started there: what was never made may be made elsewhere. */
export function volumesNotTaken(ctx: Context, { ref }: Instance, message: string): void {
  for (const held of volumesOf(ctx.state, ref.tenant).values()) {
    if (held.record.node !== ref.node || held.record.made) continue;
    held.attempted = false;
    if (held.record.restore) held.restoreError = message;
  }
}

/** What a node has measured: of a volume that is known, or of a copy that was given up. */
export function noteStorage(ctx: Context, node: Node, report: StorageReport): void {
  node.copies ??= new Map();
  if (report.removed) node.copies.delete(report.volume);
  else node.copies.set(report.volume, report);
  const held = volumesOf(ctx.state, report.tenant).get(report.name);
  if (held?.record.id !== report.volume || held.record.node !== node.name) return;
  if (!report.removed) volumeMade(ctx, held); // also where the answer to the start was lost
  held.used = { bytes: report.usedBytes, wall: fromTimestamp(report.at, ctx.at.wall) };
}

/** The node has said which copies it holds. */
export function noteCopies(ctx: Context, node: Node, reports: readonly StorageReport[]): void {
  node.copies = new Map();
  for (const report of reports) noteStorage(ctx, node, report);
}

export interface Displaced {
  readonly tenant: string;
  readonly name: string;
  /** What comes back; nothing: it is lost. */
  readonly backup: Backup | undefined;
}

/** Volumes of a node, and what would come back of them if it were gone. */
export function displacedBy(state: State, node: string): Displaced[] {
  const displaced: Displaced[] = [];
  for (const { record } of allVolumes(state)) {
    const { tenant, name, backups, made } = record;
    if (record.node === node && made) displaced.push({ tenant, name, backup: backups[0] });
  }
  return displaced;
}

/** The node is gone for good: its volumes have no place until their tenants are placed again. */
export function displaceVolumes(ctx: Context, node: string): void {
  for (const held of [...allVolumes(ctx.state)]) {
    if (held.record.node !== node) continue;
    const newest = held.record.backups[0];
    // What was about to be brought back still is.
    const restore = held.record.restore || (held.record.made ? (newest?.id ?? "") : "");
    displace(ctx, held, restore, newest, `node ${node} was forgotten`);
  }
}

/** @param backup that is brought back at the next start; "" for none */
export function displace(
  ctx: Context,
  held: HeldVolume,
  restore: string,
  backup: Backup | undefined,
  why: string,
): void {
  const { node, made } = held.record;
  const tenant = ctx.state.tenants.get(held.record.tenant);
  if (tenant) {
    // What nodes were against says nothing of where it may go now.
    tenant.nowhere = undefined;
    tenant.unfitFor = undefined;
  }
  held.attempted = false;
  held.used = undefined;
  patchVolume(ctx, held, { node: "", id: "", made: false, restore });
  const then =
    restore && backup
      ? `the next start brings it back as it was ${ageText(ctx, backup)}`
      : made
        ? "there is no backup of it: it is lost, and the next start begins with an empty one"
        : "nothing was in it";
  volumeChanged(ctx, { ...held.record, node }, VolumeChange.DISPLACED, {
    asOf: restore ? backup?.asOf : undefined,
    message: `${why}: ${then}`,
  });
}

/** Instances of the tenant that have the volume, or may have it. */
export function usersOf(state: State, { tenant: key, name }: VolumeState): Instance[] {
  const tenant = state.tenants.get(key);
  if (!tenant) return [];
  return instancesOf(state, key).filter(({ ref }) =>
    specOf(tenant, ref).volumes.some((volume) => volume.name === name),
  );
}

export function volumeChanged(
  ctx: Context,
  { tenant, name, node }: Pick<VolumeState, "tenant" | "name" | "node">,
  change: VolumeChange,
  more: { readonly asOf?: Backup["asOf"]; readonly message: string },
): void {
  const value = create(VolumeChangedSchema, { tenant, name, node, change, ...more });
  ctx.emit({ type: "event", tenant, payload: { case: "volume", value } });
}

/** "12 min before, at 2026-11-30T10:00:00Z" */
export function ageText({ at }: Pick<Context, "at">, { asOf }: Backup): string {
  const time = fromTimestamp(asOf, 0);
  return `${spanText(at.wall - time)} ago, at ${new Date(time).toISOString().slice(0, 19)}Z`;
}

function spanText(ms: number): string {
  const units = [
    [86_400_000, "d"],
    [3_600_000, "h"],
    [60_000, "min"],
  ] as const;
  const [per, unit] = units.find(([per]) => ms >= 2 * per) ?? ([1_000, "s"] as const);
  return `${Math.max(0, Math.round(ms / per))} ${unit}`;
}
