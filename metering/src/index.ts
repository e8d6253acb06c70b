export { type Metering, type MeteringOptions, startMetering } from "./metering.ts";
