export { type CoreConfig, defaultCoreConfig } from "./core/config.ts";
export { type Scheduler, type SchedulerOptions, startScheduler } from "./scheduler.ts";
