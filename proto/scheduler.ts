/** SchedulerService (control planes, gateways, operators), NodeService (agents) and EnrolService (hosts that are added). */
export * from "./gen/warren/scheduler/v1/enrol_service_pb.ts";
export * from "./gen/warren/scheduler/v1/node_service_pb.ts";
export * from "./gen/warren/scheduler/v1/scheduler_service_pb.ts";
