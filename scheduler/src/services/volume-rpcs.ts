/** SchedulerService, the part about volumes. */

import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { volumeBytes } from "@warren/common/tenant-files";
import { toTimestamp } from "@warren/common/time";
import { AgentService } from "@warren/proto/agent";
import { type StorageReport, VolumeStateSchema } from "@warren/proto/common";
import { type SchedulerService, type VolumeInfo, VolumeInfoSchema } from "@warren/proto/scheduler";
import { type HeldVolume, type State, serving } from "../core/model.ts";
import { allVolumes, volumesOf } from "../core/volumes.ts";
import type { Services } from "./context.ts";

const mostListed = 10_000;

export function volumeRpcs({ engine, agents, epoch }: Services) {
  const { state } = engine.core;
  return {
    listVolumes({ tenant }) {
      const listed = [...allVolumes(state)].map((held) => viewOf(state, held));
      const all = [...listed, ...leftOvers(state)].filter(
        ({ volume }) => !tenant || volume?.tenant === tenant,
      );
      return { volumes: all.sort(byName).slice(0, mostListed) };
    },
    async removeVolume({ tenant, name, id }) {
      if (id === "") {
        await engine.ask((call) => ({ type: "remove-volume", call, tenant, name }));
        return {};
      }
      if (volumesOf(state, tenant).get(name)?.record.id === id) {
        throw rpcError(
          Code.FailedPrecondition,
          `copy ${id} is the volume ${name} itself, not left over: leave the id out`,
        );
      }
      const found = nodeOfCopy(state, tenant, name, id);
      if (!found)
        throw rpcError(Code.NotFound, `no node that reports has a copy ${id} of volume ${name} of ${tenant}`);
      await agents.connection(found.agentUrl).client(AgentService).removeVolume({ epoch, volume: id });
      found.copies?.delete(id);
      return {};
    },
    async backupVolume({ tenant, name }) {
      const answer = await engine.ask((call) => ({ type: "backup-volume", call, tenant, name }));
      return answer.kind === "backup" ? { backup: answer.backup, unchanged: answer.unchanged } : {};
    },
    async restoreVolume({ tenant, name, backup }) {
      const answer = await engine.ask((call) => ({ type: "restore-volume", call, tenant, name, backup }));
      return answer.kind === "backup" ? { backup: answer.backup } : {};
    },
  } satisfies Partial<ServiceImpl<typeof SchedulerService>>;
}

function viewOf(state: State, { record, used, backupError, restoreError }: HeldVolume): VolumeInfo {
  const tenant = state.tenants.get(record.tenant);
  const spec = tenant && serving(tenant).spec.volumes.find(({ name }) => name === record.name);
  return create(VolumeInfoSchema, {
    volume: record,
    usedBytes: used?.bytes,
    measuredAt: used && toTimestamp(used.wall),
    sizeBytes: spec && BigInt(volumeBytes(spec)),
    inSpec: spec !== undefined,
    path: spec?.path,
    backupError: backupError ?? restoreError,
  });
}

/** Copies that nodes hold and that nothing uses: given up for another one, or of a tenant that is gone. */
function leftOvers(state: State): VolumeInfo[] {
  return state.roster.flatMap((node) =>
    [...(node.copies?.values() ?? [])]
      .filter(({ tenant, name, volume }) => volumesOf(state, tenant).get(name)?.record.id !== volume)
      .map((report) => leftOver(node.name, report)),
  );
}

function leftOver(node: string, { volume: id, tenant, name, usedBytes, at }: StorageReport): VolumeInfo {
  const volume = create(VolumeStateSchema, { tenant, name, id, node, made: true });
  return create(VolumeInfoSchema, { volume, usedBytes, measuredAt: at, leftOver: true });
}

function nodeOfCopy(state: State, tenant: string, name: string, id: string) {
  return state.roster.find((node) => {
    const report = node.copies?.get(id);
    return report?.tenant === tenant && report.name === name && node.confirmed && !node.lost;
  });
}

function byName({ volume: a }: VolumeInfo, { volume: b }: VolumeInfo): number {
  const key = (volume: typeof a) => `${volume?.tenant} ${volume?.name} ${volume?.id}`;
  return key(a) < key(b) ? -1 : 1;
}
