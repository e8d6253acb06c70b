/** Every port that Warren listens on unless told otherwise. Each is named here and nowhere else; 0 means any free one. */
export const ports = {
  /** Tenant HTTP through the gateway. */
  gateway: 8080,
  /** SchedulerService and NodeService. */
  scheduler: 7420,
  /** AgentService. */
  agent: 7421,
  /** MeteringService. */
  metering: 7422,
  /** The gateway's health and metrics. */
  gatewayAdmin: 7423,
} as const;

/** Where agents put their tenants: below the ephemeral range of Linux (32768), so that no client socket is in the way. */
export const tenantPorts = { from: 20000, to: 32767 } as const;
