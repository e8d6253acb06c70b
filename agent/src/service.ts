/** AgentService: from messages to mechanism and back. Who may call, and what a valid message is, was checked before. */
import type { ServiceImpl } from "@connectrpc/connect";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { fromDuration, fromTimestamp, toTimestamp } from "@warren/common/time";
import type { AgentService } from "@warren/proto/agent";
import type { Fence } from "./fence.ts";
import type { Instances } from "./instances.ts";
import type { LogStore } from "./logs.ts";
import type { ReleaseCache } from "./releases.ts";
import type { Snapshots } from "./volumes/snapshots.ts";
import type { VolumeStore } from "./volumes/store.ts";

export interface ServiceParts {
  readonly incarnation: string;
  readonly fence: Fence;
  readonly instances: Instances;
  readonly releases: ReleaseCache;
  readonly logs: LogStore;
  readonly volumes: VolumeStore;
  readonly snapshots: Snapshots;
}

export function agentService(parts: ServiceParts): ServiceImpl<typeof AgentService> {
  const { fence, instances, releases, logs, volumes, snapshots } = parts;
  const later = (what: string) => rpcError(Code.Unimplemented, `this agent cannot ${what} yet`);
  return {
    async startInstance(request, context) {
      if (request.incarnation !== "" && request.incarnation !== parts.incarnation) {
        throw rpcError(
          Code.FailedPrecondition,
          `this agent process is ${parts.incarnation}, not ${request.incarnation}: it was started anew, look at its inventory first`,
        );
      }
      fence.check(request.epoch);
      return { instance: await instances.start(request, context.signal) };
    },

    async stopInstance(request, context) {
      fence.check(request.epoch);
      if (request.ifWakes !== undefined) instances.checkWakes(request.instance, request.ifWakes);
      const { reason } = request;
      const graceMs = fromDuration(request.grace, undefined);
      const drainMs = fromDuration(request.drain, 0);
      return {
        instance: await instances.stop(request.instance, { reason, graceMs, drainMs }, context.signal),
      };
    },

    async freezeInstance({ epoch, instance: id, ifWakes, pageOut }, context) {
      fence.check(epoch);
      const { reclaimedBytes, instance } = await instances.freeze(id, ifWakes, pageOut, context.signal);
      return { reclaimedBytes: BigInt(Math.round(reclaimedBytes)), instance };
    },

    thawInstance({ instance: id }) {
      return { wakes: BigInt(instances.thaw(id)) };
    },

    listInstances() {
      return { instances: instances.list() };
    },

    async *streamLogs({ instance: id, tail, follow, since, partial }, context) {
      const files = logs.find(id);
      if (!files) {
        throw rpcError(
          Code.NotFound,
          `no output of instance ${id} on this node: it never ran here, or too long ago`,
        );
      }
      const ended = () => instances.get(id) === undefined;
      const options = { tail, follow, since: fromTimestamp(since, 0), partial, ended };
      for await (const lines of files.read(options, Date.now, context.signal)) {
        if (lines.length === 0) yield { caughtUp: true };
        else yield { lines: lines.map(({ at, ...line }) => ({ ...line, at: toTimestamp(at) })) };
      }
    },

    async fetchRelease({ epoch, digest }) {
      fence.check(epoch);
      const cached = releases.has(digest);
      await releases.ensure(digest);
      return { cached };
    },

    async *backupVolume(request, context) {
      fence.check(request.epoch);
      yield* snapshots.backup(request, context.signal);
    },

    async restoreVolume(parts) {
      return { usedBytes: BigInt(await snapshots.restore(parts, ({ epoch }) => fence.check(epoch))) };
    },

    async removeVolume({ epoch, volume }) {
      fence.check(epoch);
      await volumes.remove(volume);
      return {};
    },

    // biome-ignore lint/correctness/useYield: it refuses before it has anything to say
    async *buildRelease() {
      throw later("build releases");
    },
  };
}
