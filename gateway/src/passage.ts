/** A request and where it goes. */
import type { Server } from "bun";
import type { Client } from "./headers.ts";
import type { SocketData } from "./websocket.ts";

export interface Passage {
  readonly request: Request;
  readonly server: Server<SocketData>;
  readonly tenant: string;
  /** Path and query for the tenant. */
  readonly target: string;
  /** The client asks for a WebSocket. */
  readonly upgrade: boolean;
  readonly client: Client;
}
