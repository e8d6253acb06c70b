/** AgentService: what the scheduler commands on one node. */
export * from "./gen/warren/agent/v1/agent_service_pb.ts";
