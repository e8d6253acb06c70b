/** Types that every room shares: tenants, releases, instances, nodes, events, error details, roles. */
export * from "./gen/warren/common/v1/error_pb.ts";
export * from "./gen/warren/common/v1/event_pb.ts";
export * from "./gen/warren/common/v1/instance_pb.ts";
export * from "./gen/warren/common/v1/node_pb.ts";
export * from "./gen/warren/common/v1/release_pb.ts";
export * from "./gen/warren/common/v1/role_pb.ts";
export * from "./gen/warren/common/v1/tenant_pb.ts";
export * from "./gen/warren/common/v1/volume_pb.ts";
