/**
 * Who calls, and whether they may (DESIGN rule 10). A caller shows a client certificate of the cell's CA or a bearer
 * token; the RPC's `allow` option names the roles. No option: nobody. Health answers everybody, reflection anybody
 * with a credential; an RPC `by_join_token` asks for its token itself.
 */
import { getOption, hasOption } from "@bufbuild/protobuf";
import { Code, createContextKey, type Interceptor } from "@connectrpc/connect";
import { allow, by_join_token, type Role } from "@warren/proto/common";
import { Health } from "@warren/proto/grpc";
import type { TokenVerifier } from "../tls/tokens.ts";
import { rpcError } from "./errors.ts";
import { type Principal, roleName } from "./roles.ts";

/** What the TLS layer saw of the caller. */
export interface PeerCertificate {
  readonly role: Role;
  readonly name: string;
  /** Whether the cell's CA signed it. */
  readonly trusted: boolean;
  /** All of it, DER. */
  readonly raw: Uint8Array;
}

export const principalKey = createContextKey<Principal | undefined>(undefined, { description: "principal" });
export const peerKey = createContextKey<PeerCertificate | undefined>(undefined, {
  description: "peer certificate",
});

/**
 * @throws ConnectError UNAUTHENTICATED without a credential that can be believed
 */
export async function authenticate(
  authorization: string | null,
  peer: PeerCertificate | undefined,
  verify: TokenVerifier,
): Promise<Principal> {
  if (peer && !peer.trusted) {
    throw rpcError(
      Code.Unauthenticated,
      "the client certificate was not signed by this cell's CA: use one from this cell, or none and a token",
    );
  }
  if (authorization !== null) {
    const token = /^Bearer ([\w.~+/=-]{1,4096})$/i.exec(authorization)?.[1];
    const principal = token ? await verify(token) : undefined;
    if (!principal) {
      throw rpcError(
        Code.Unauthenticated,
        "the bearer token is not one of this cell, or has expired: take the one in the cell's state directory (credentials/<name>/token)",
      );
    }
    return principal;
  }
  if (peer) return { role: peer.role, name: peer.name };
  throw rpcError(
    Code.Unauthenticated,
    "no credential: send 'Authorization: Bearer <token>' or a client certificate of this cell",
  );
}

export function authInterceptor(verify: TokenVerifier): Interceptor {
  return (next) => async (request) => {
    if (request.service.typeName === Health.typeName || getOption(request.method, by_join_token))
      return next(request);
    const principal = await authenticate(
      request.header.get("Authorization"),
      request.contextValues.get(peerKey),
      verify,
    );
    const reflection = request.service.typeName.startsWith("grpc.reflection.");
    const allowed = hasOption(request.method, allow) ? getOption(request.method, allow) : [];
    if (!reflection && !allowed.includes(principal.role)) {
      throw rpcError(
        Code.PermissionDenied,
        `${request.service.typeName}/${request.method.name} is for ${allowed.map(roleName).join(", ") || "nobody"}; this credential is for ${roleName(principal.role)}`,
      );
    }
    request.contextValues.set(principalKey, principal);
    return next(request);
  };
}
