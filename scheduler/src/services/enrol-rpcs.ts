/** EnrolService: a certificate for a host that shows a join token. */
import type { ServiceImpl } from "@connectrpc/connect";
import { peerKey } from "@warren/common/rpc/auth";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { roleName } from "@warren/common/rpc/roles";
import { fromTimestamp } from "@warren/common/time";
import { type CertificateAuthority, certify, readSigningRequest, renew } from "@warren/common/tls/ca";
import { loopbackHosts } from "@warren/common/tls/cell";
import { hostsFor, isOpen, type JoinToken } from "@warren/common/tls/join-token";
import { Role } from "@warren/proto/common";
import type { EnrolService, SpentJoinToken } from "@warren/proto/scheduler";
import { toRpcError } from "../refusals.ts";
import { forgottenEntry, mostSpent, revoke, spend, spentEntry } from "../spent-tokens.ts";
import type { Services } from "./context.ts";
import { joinTokenKey } from "./enrol-gate.ts";

export interface Enrolment {
  /** The cell's CA, if this scheduler may sign. */
  readonly authority?: CertificateAuthority;
  /** Public half (PEM) of the cell's token key, which servers need. */
  readonly tokenKey: string;
  /** Names and addresses of this scheduler's own certificate. */
  readonly ownHosts: readonly string[];
  /** What became of tokens before this term. */
  readonly spent: readonly SpentJoinToken[];
}

export function enrolRpcs(
  { engine, writer, log }: Services,
  { authority, tokenKey, ownHosts, spent: before }: Enrolment,
): ServiceImpl<typeof EnrolService> {
  const spent = new Map(before.map((record) => [record.id, record]));

  /** Takes effect at once, so that of two who show a token at the same time one is refused. */
  const remember = async (record: SpentJoinToken): Promise<void> => {
    forgetExpired();
    if (!spent.has(record.id) && spent.size >= mostSpent) {
      throw toRpcError({ kind: "too-many", what: "join tokens that were used or revoked", limit: mostSpent });
    }
    spent.set(record.id, record);
    await persist(record);
  };
  /** In doubt it stays used: the same host may ask again. */
  const persist = (record: SpentJoinToken) =>
    writer.append(spentEntry(record)).catch((error: Error) => {
      throw toRpcError({ kind: "store-down", message: error.message });
    });
  const forgetExpired = (): void => {
    const { wall } = engine.now();
    for (const { id, keptUntil } of [...spent.values()]) {
      if (fromTimestamp(keptUntil, 0) > wall) continue;
      spent.delete(id);
      writer.append(forgottenEntry(id)).catch((error: Error) => {
        log.warn({ err: error, token: id }, "an expired join token is not forgotten yet");
      });
    }
  };

  /** @throws ConnectError when the name is somebody's */
  const checkName = (token: JoinToken, name: string): void => {
    if (token.role !== Role.AGENT) return;
    const node = engine.core.state.nodes.get(name);
    if (node && (isOpen(token) || !node.lost)) {
      throw rpcError(
        Code.AlreadyExists,
        `there is a node ${name} already${node.lost ? " in the roster" : ", and it is live"}: give this host another name, or ${node.lost ? "take a token for that very name" : "stop the other's agent first"}`,
      );
    }
  };

  /** Of a pattern nobody has looked at each name that it allows. @throws ConnectError */
  const checkHosts = (token: JoinToken, name: string): void => {
    const ours = isOpen(token) ? hostsFor(token, name).find((host) => ownHosts.includes(host)) : undefined;
    if (ours === undefined) return;
    throw rpcError(
      Code.PermissionDenied,
      `${name} would be reached by ${ours}, which is this scheduler: give the host another name, or take a token for that very name`,
    );
  };

  const signer = (): CertificateAuthority => {
    if (authority) return authority;
    throw rpcError(
      Code.FailedPrecondition,
      "this scheduler was given no CA to sign with: start it with '--ca DIR', or carry credentials to the host ('warren ca issue')",
    );
  };

  return {
    async enrol({ name, signingRequest }, context) {
      const token = context.values.get(joinTokenKey);
      if (!token) throw rpcError(Code.Unauthenticated, "no join token was shown");
      const ca = signer();
      const request = await readSigningRequest(signingRequest);
      if (!request) {
        throw rpcError(
          Code.InvalidArgument,
          "signing_request: must be a PKCS#10 request, PEM, for a P-256 key and signed with it",
        );
      }
      // From here to `remember` nothing waits: what is decided is decided for one caller at a time.
      const { wall } = engine.now();
      const outcome = spend(spent.get(token.id), token, name, request.keyHash, wall);
      if (outcome.kind === "refused") {
        log.warn({ token: token.id, name }, `not enrolled: ${outcome.why}`);
        throw rpcError(Code.PermissionDenied, outcome.why);
      }
      if (outcome.kind === "again") await persist(outcome.record);
      else {
        checkName(token, name);
        checkHosts(token, name);
        await remember(outcome.record);
      }
      const { cell, role } = token;
      const hosts = [...loopbackHosts, ...hostsFor(token, name)];
      const certificate = await certify(ca, { cell, role, name, hosts }, request.publicKey);
      log.info({ token: token.id, name, role: roleName(role), hosts }, "enrolled by a join token");
      return { certificate, tokenKey };
    },

    async renew(_request, context) {
      const peer = context.values.get(peerKey);
      if (!peer?.trusted)
        throw rpcError(
          Code.Unauthenticated,
          "a certificate is renewed for who shows it, not for a bearer token",
        );
      const certificate = await renew(signer(), peer.raw);
      log.info({ name: peer.name, role: roleName(peer.role) }, "a certificate was renewed");
      return { certificate };
    },

    listJoinTokens() {
      return { tokens: [...spent.values()].sort((a, b) => (a.id < b.id ? -1 : 1)) };
    },

    async revokeJoinToken({ id }) {
      await remember(revoke(spent.get(id), id, engine.now().wall));
      log.info({ token: id }, "a join token was revoked");
      return {};
    },
  };
}
