/** Every verb with --json and what it prints; docs/json.md is made from this, and a test compares it with real output. */
import { clusterOutputs } from "./cluster-outputs.ts";
import type { Output } from "./shape.ts";
import { tenantOutputs } from "./tenant-outputs.ts";

export const outputs: readonly Output[] = [...tenantOutputs, ...clusterOutputs];

export const outputOf = (verb: string): Output | undefined => outputs.find((one) => one.verb === verb);
