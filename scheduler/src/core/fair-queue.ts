/**
 * Tenants that want an instance: the higher priority first, and within one in turns, so that a tenant which wants many
 * cannot starve one that wants a single instance. A tenant stands in it once, whatever it wants.
 */
export class FairQueue {
  /** By priority, highest first; in each the tenants in their turn. */
  readonly #lines: { readonly priority: number; readonly tenants: Set<string> }[] = [];
  readonly #priorities = new Map<string, number>();

  get size(): number {
    return this.#priorities.size;
  }

  has(tenant: string): boolean {
    return this.#priorities.has(tenant);
  }

  /** Adds a tenant at the end of its line; one that stands there keeps its turn, unless its priority has changed. */
  add(tenant: string, priority: number): void {
    const known = this.#priorities.get(tenant);
    if (known === priority) return;
    if (known !== undefined) this.delete(tenant);
    this.#priorities.set(tenant, priority);
    let i = 0;
    while (i < this.#lines.length && this.#lines[i]!.priority > priority) i++;
    const line = this.#lines[i];
    if (line?.priority === priority) line.tenants.add(tenant);
    else this.#lines.splice(i, 0, { priority, tenants: new Set([tenant]) });
  }

  /** It had its turn, and wants more. */
  rotate(tenant: string): void {
    const priority = this.#priorities.get(tenant);
    const line = this.#lines.find((one) => one.priority === priority);
    if (line?.tenants.delete(tenant)) line.tenants.add(tenant);
  }

  delete(tenant: string): void {
    const priority = this.#priorities.get(tenant);
    if (priority === undefined) return;
    this.#priorities.delete(tenant);
    const i = this.#lines.findIndex((line) => line.priority === priority);
    this.#lines[i]!.tenants.delete(tenant);
    if (this.#lines[i]!.tenants.size === 0) this.#lines.splice(i, 1);
  }

  /** The highest there is; below all others when nobody stands in it. */
  get priority(): number {
    return this.#lines[0]?.priority ?? Number.NEGATIVE_INFINITY;
  }

  /** Whose turn it is. */
  first(): string | undefined {
    return this.#lines[0]?.tenants.values().next().value;
  }

  /** All, in their order. */
  *[Symbol.iterator](): Iterator<string> {
    for (const { tenants } of this.#lines) yield* tenants;
  }
}
