/** What can go wrong before the agent serves; what goes wrong later is answered as RPC errors. */

/** The agent could not be started; the message names the cause and the remedy. */
export class AgentStartError extends Error {
  override readonly name = "AgentStartError";
}
