/**
 * What stands before EnrolService: strangers may call it, so that only one with a join token of this cell learns
 * anything, be it who leads.
 */
import { createContextKey, type ServiceImpl } from "@connectrpc/connect";
import { Bucket } from "@warren/common/bucket";
import { Code, ConnectError, rpcError } from "@warren/common/rpc/errors";
import { type JoinToken, JoinTokenError, type JoinTokenVerifier } from "@warren/common/tls/join-token";
import type { EnrolService } from "@warren/proto/scheduler";

/** The token that was believed. */
export const joinTokenKey = createContextKey<JoinToken | undefined>(undefined, { description: "join token" });

/** Tokens looked at, at once and a second. A signature takes 0.1 ms to check; a fleet that is added takes far fewer. */
const most = { atOnce: 500, perSecond: 200 } as const;

export interface GateOptions {
  readonly verify: JoinTokenVerifier;
  /** ms */
  readonly monotonic: () => number;
  /** Told of each call of Enrol: "enrolled", or the code of the refusal. */
  readonly onOutcome: (outcome: string) => void;
}

export function gated(
  service: ServiceImpl<typeof EnrolService>,
  { verify, monotonic, onOutcome }: GateOptions,
): ServiceImpl<typeof EnrolService> {
  const bucket = new Bucket(most.atOnce, most.perSecond, monotonic);
  const believed = async (text: string): Promise<JoinToken> => {
    if (!bucket.take()) throw rpcError(Code.ResourceExhausted, "too many ask to join at once: try again");
    try {
      return await verify(text);
    } catch (error) {
      throw error instanceof JoinTokenError ? rpcError(Code.Unauthenticated, error.message) : error;
    }
  };
  return {
    ...service,
    async enrol(request, context) {
      try {
        context.values.set(joinTokenKey, await believed(request.token));
        const response = await service.enrol(request, context);
        onOutcome("enrolled");
        return response;
      } catch (error) {
        onOutcome(Code[ConnectError.from(error).code]?.toLowerCase() ?? "unknown");
        throw error;
      }
    },
  };
}
