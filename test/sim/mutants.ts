/**
 * Ways to break the core, each as a change of its source. A mutant whose old text is not there any more is refused: it
 * is to be mended together with the core. Production code carries nothing for it.
 */

export interface Mutant {
  readonly name: string;
  /** What it breaks, for a person. */
  readonly breaks: string;
  /** In scheduler/src/core. */
  readonly file: string;
  readonly old: string;
  readonly new: string;
}

export const mutants: readonly Mutant[] = [
  {
    name: "one over the cap",
    breaks: "rule 1: one instance more than maxConcurrent is admitted",
    file: "queue.ts",
    old: "while (!isHeld && state.live < config.maxConcurrent) {",
    new: "while (!isHeld && state.live <= config.maxConcurrent) {",
  },
  {
    name: "a stop that failed counts as done",
    breaks: "rules 1 and 5: a place is given back while its process lives",
    file: "life.ts",
    old: "  if (answer.error !== undefined) {",
    new: '  if (answer.error === "never") {',
  },
  {
    name: "an unknown start counts as none",
    breaks: "rules 1 and 2: a start that nobody heard of again is forgotten, and may live",
    file: "life.ts",
    old: 'if (instance.phase.kind === "starting") commandStop(ctx, instance, ExitReason.UNKNOWN);',
    new: 'if (instance.phase.kind === "starting") vanish(ctx, instance, "unknown");',
  },
  {
    name: "a new leader forgets placements",
    breaks: "rules 1 and 2: what the leader before had placed holds no place",
    file: "core.ts",
    old: '    track(ctx, ref, { kind: "unconfirmed" });',
    new: "",
  },
  {
    name: "at-most-one is given up with its node",
    breaks: "rule 2: it is started elsewhere without proof that it is gone",
    file: "nodes.ts",
    old: 'if (instance.lost || atMostOne || instance.phase.kind === "persisting") continue;',
    new: 'if (instance.lost || instance.phase.kind === "persisting") continue;',
  },
  {
    name: "a slot is free before its process is gone",
    breaks: "rule 2: what is at-most-one runs twice while the first one stops",
    file: "desire.ts",
    old: "  for (const { ref, lost } of instancesOf(ctx.state, tenant.key)) if (!lost) held.add(ref.slot);",
    new: '  for (const { ref, lost, phase } of instancesOf(ctx.state, tenant.key)) if (!lost && phase.kind !== "stopping") held.add(ref.slot);',
  },
  {
    name: "a node is lost at once",
    breaks: "rule 2: what runs is given up without a silence that would allow it",
    file: "nodes.ts",
    old: "if (!node.lost && at.mono - heard >= lostMs) lose(ctx, node);",
    new: "if (!node.lost && at.mono - heard >= config.nodeLateMs) lose(ctx, node);",
  },
  {
    name: "gateways need not confirm",
    breaks: "rule 3: an idle instance goes while a request is on its way to it",
    file: "quiesce.ts",
    old: "    if ((teller?.sealed ?? 0) < instance.version) return;",
    new: "",
  },
  {
    name: "an old seal counts",
    breaks: "rule 3: a gateway's word on an earlier version is taken for this one",
    file: "quiesce.ts",
    old: "    if ((teller?.sealed ?? 0) < instance.version) return;",
    new: "    if ((teller?.sealed ?? 0) === 0) return;",
  },
  {
    name: "waiters are answered and kept",
    breaks: "rule 4: a call is answered twice",
    file: "waiters.ts",
    old: "  state.waiters.delete(tenant);\n  state.waiting -= waiters.length;\n  return waiters;",
    new: "  return waiters;",
  },
  {
    name: "late waiters are dropped in silence",
    breaks: "rule 4: a call is never answered",
    file: "tick.ts",
    old: '    for (const { call } of late) ctx.emit({ type: "refuse", call, refusal });',
    new: "    void refusal;",
  },
  {
    name: "a placement that is not persisted is commanded",
    breaks: "failing over: a start of which no log knows",
    file: "life.ts",
    old: 'failed: { type: "placement-failed", instance: ref.id, message: "the store did not take the placement" },',
    new: 'failed: { type: "placement-durable", instance: ref.id },',
  },
  {
    name: "what a node does not have any more is kept",
    breaks: "convergence: a place is held for ever by what is gone",
    file: "nodes.ts",
    old: '    vanish(ctx, instance, "its node does not have it");',
    new: "",
  },
];
