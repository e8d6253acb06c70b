/** MeteringService: what was used. */
export * from "./gen/warren/metering/v1/metering_service_pb.ts";
