/** SchedulerService (control planes, gateways, operators) and NodeService (agents). */
export * from "./gen/warren/scheduler/v1/node_service_pb.ts";
export * from "./gen/warren/scheduler/v1/scheduler_service_pb.ts";
