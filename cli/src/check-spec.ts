/** Whether a spec is one, before anything is uploaded for it: by the rules of the contract, as the scheduler checks them. */
import { specProblem } from "@warren/common/spec-check";
import { type TenantSpec, TenantSpecSchema } from "@warren/proto/common";
import { UserError } from "./exit.ts";

/** @throws UserError naming each field that is wrong */
export async function checkSpec(spec: TenantSpec): Promise<void> {
  const problem = specProblem(spec);
  if (problem) throw new UserError(`spec.${problem.field}: ${problem.message}`);
  // It compiles each rule: only where a spec is sent.
  const { createValidator } = await import("@bufbuild/protovalidate");
  const result = createValidator().validate(TenantSpecSchema, spec);
  if (result.kind === "valid") return;
  if (result.kind === "error") throw result.error;
  const wrong = result.violations.map((violation) => {
    const text = `${violation}`.replace(/ \[[\w.]+\]$/, ""); // the rule's id says no more
    return violation.field.length > 0 ? `spec.${text}` : `spec: ${text}`;
  });
  throw new UserError(wrong.join("\n"));
}
