/**
 * Where an instance goes. Not all nodes are scored but a sample of those that can take it, max(8, ⌈log2 N⌉) of them, after
 * the power of choices (Mitzenmacher, 1996; so does Nomad): who asks for a place is answered in the same time at 10,000
 * nodes as at 100. Nodes that hold the release already come first into the sample. Of these the best fit by predicted peaks
 * is taken. Pure, and it explains itself.
 */
import { type Estimate, peakOf, plus } from "./estimate.ts";
import { filters, refusing, type Wanted } from "./filters.ts";
import type { Node } from "./model.ts";

export interface PlaceInput extends Wanted {
  /** All nodes. */
  readonly roster: readonly Node[];
  /** Some that may have its release in their cache. */
  readonly holders: readonly Node[];
  readonly random: () => number;
}

export type PlaceResult =
  | {
      readonly kind: "placed";
      readonly node: Node;
      readonly why: string;
      /** Nodes refused on the way, by the filter's name. */
      readonly refusals: Readonly<Record<string, number>>;
    }
  | {
      readonly kind: "nowhere";
      /** Nodes refused, by filter as a person reads it. */
      readonly refused: Readonly<Record<string, number>>;
      readonly refusals: Readonly<Record<string, number>>;
      /** Whether waiting may help: some node was refused for what passes by itself. */
      readonly transient: boolean;
    };

export function sampleSize(nodes: number, least: number): number {
  return Math.max(least, Math.ceil(Math.log2(Math.max(1, nodes))));
}

interface Candidate {
  readonly node: Node;
  readonly holds: boolean;
  /** Share of its memory or its CPU that is predicted to be needed with the instance on it, whichever is more. */
  readonly fill: number;
  readonly score: number;
  readonly lot: number;
}

export function place(input: PlaceInput): PlaceResult {
  const { roster, holders, spec, random } = input;
  const wanted = sampleSize(roster.length, input.config.sampleLeast);
  const candidates: Candidate[] = [];
  const refusals: Record<string, number> = {};
  const met = new Set<Node>(); // of those that hold the release, who come again on the walk
  let transient = roster.length === 0;
  const consider = (node: Node, holds: boolean): void => {
    const filter = refusing(node, input);
    if (!filter) {
      candidates.push(candidateOf(node, holds, input));
      return;
    }
    refusals[filter.name] = (refusals[filter.name] ?? 0) + 1;
    transient ||= filter.transient;
  };
  for (const node of holders) {
    if (candidates.length >= Math.ceil(wanted / 2)) break;
    met.add(node);
    consider(node, true);
  }
  // From a random place with a random step that shares no factor with the number of nodes: each is met once, so that
  // "nowhere" has seen all of them.
  for (const node of walk(roster, random)) {
    if (candidates.length >= wanted) break;
    if (!met.has(node)) consider(node, false);
  }
  if (candidates.length === 0) {
    return { kind: "nowhere", refused: inWords(refusals, spec), refusals, transient };
  }
  const best = slowed(candidates).reduce((a, b) => (better(b, a) ? b : a));
  return { kind: "placed", node: best.node, why: explainChoice(best, candidates, roster.length), refusals };
}

/**
 * A node that waits for its CPU is less than full, but slow. Nodes of one host (one boot of it) wait alike, whatever each
 * saw last.
 */
function slowed(candidates: readonly Candidate[]): Candidate[] {
  const waits = new Map<string, number>();
  for (const { node } of candidates) {
    const wait = (node.pressure?.cpuSomeAvg10 ?? 0) / 100;
    waits.set(node.bootId, Math.max(wait, waits.get(node.bootId) ?? 0));
  }
  return candidates.map((one) => ({ ...one, score: one.score - (waits.get(one.node.bootId) ?? 0) }));
}

/** In the order of the filters, as a person reads them. */
function inWords(refusals: Readonly<Record<string, number>>, spec: Wanted["spec"]): Record<string, number> {
  const words: Record<string, number> = {};
  for (const { name, text } of filters) if (refusals[name]) words[text(spec)] = refusals[name];
  return words;
}

function candidateOf(node: Node, holds: boolean, input: PlaceInput): Candidate {
  const { config, need, random } = input;
  const share = (charged: Estimate, more: Estimate, capacity: number) =>
    peakOf(plus(charged, more)) / Math.max(1, capacity);
  const bytes = Number(node.capacity?.memoryBytes ?? 0n) * config.overcommitMemory;
  const memory = share(node.charged.memory, need.memory, bytes);
  // CPU is compressible: a node that is predicted to be short of it is the worse choice, and a choice all the same.
  const cpu = share(node.charged.cpu, need.cpu, node.capacity?.cpuMillis ?? 0);
  const fill = Math.max(memory, cpu);
  return { node, holds, fill, score: scoreOf(fill, holds, node, input), lot: random() };
}

/** What having the release in the cache is worth: as much as being so much better a fit. */
const localityBonus = 0.1;

/**
 * What each instance of the same tenant costs that is there already: as much as being empty instead of full, so that the
 * end of one node does not take them all where there is another choice.
 */
const siblingPenalty = 1;

/** Higher is better. */
function scoreOf(fill: number, holds: boolean, node: Node, { config, perNode }: Wanted): number {
  const fit =
    config.placement === "spread"
      ? 1 - fill
      : fill <= config.packTo
        ? fill
        : // Beyond what is comfortable the emptier is the better, and any below is better still.
          -fill;
  const siblings = perNode?.get(node.name) ?? 0;
  return fit + (holds ? localityBonus : 0) - siblings * siblingPenalty;
}

/** Scores within this much of each other are equal: then the node with fewer instances is taken. */
const even = 0.002;

function better(a: Candidate, b: Candidate): boolean {
  if (Math.abs(a.score - b.score) > even) return a.score > b.score;
  if (a.node.placed !== b.node.placed) return a.node.placed < b.node.placed;
  return a.lot < b.lot;
}

function explainChoice(best: Candidate, candidates: readonly Candidate[], nodes: number): string {
  const of = `${nodes > candidates.length ? `${candidates.length} sampled of ` : ""}${nodes} node${nodes === 1 ? "" : "s"}`;
  const { placed } = best.node;
  const release = best.holds ? ", and has the release" : "";
  return `best fit of ${of}: ${(best.fill * 100).toFixed(1)} % filled by predicted peaks, ${placed} instance${placed === 1 ? "" : "s"} there${release}`;
}

function* walk<T>(all: readonly T[], random: () => number): Generator<T> {
  const n = all.length;
  if (n === 0) return;
  let step = n < 3 ? 1 : 1 + Math.floor(random() * (n - 1));
  while (greatestCommonDivisor(step, n) !== 1) step = (step % (n - 1)) + 1;
  let i = Math.floor(random() * n);
  for (let left = n; left > 0; left--) {
    yield all[i]!;
    i = (i + step) % n;
  }
}

function greatestCommonDivisor(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y !== 0) [x, y] = [y, x % y];
  return x;
}
