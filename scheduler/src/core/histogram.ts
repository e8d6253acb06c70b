/**
 * A histogram of fixed size whose buckets grow by a constant factor and whose samples weigh half after a half-life: the
 * estimator of Borg's and Kubernetes' vertical autoscalers (Rzadca et al., "Autopilot", EuroSys 2020). Instead of
 * ageing all buckets, newer samples weigh more.
 */
export class DecayingHistogram {
  readonly #weights: Float32Array;
  readonly #first: number;
  readonly #growth: number;
  readonly #halfLifeMs: number;
  #reference: number | undefined;
  #total = 0;
  #sum = 0;
  #squares = 0;

  /** @param first upper bound of the first bucket; @param growth from one bound to the next */
  constructor(options: { first: number; growth: number; buckets: number; halfLifeMs: number }) {
    this.#weights = new Float32Array(options.buckets);
    this.#first = options.first;
    this.#growth = Math.log(options.growth);
    this.#halfLifeMs = options.halfLifeMs;
  }

  /** Samples that it rests on; those of long ago count for little. */
  get weight(): number {
    return this.#total === 0 ? 0 : this.#total / this.#latest;
  }

  #latest = 1;

  add(value: number, mono: number): void {
    this.#reference ??= mono;
    let exponent = (mono - this.#reference) / this.#halfLifeMs;
    if (exponent > 40) {
      // Before numbers grow too large, what is old is scaled down.
      const scale = 2 ** -exponent;
      for (let i = 0; i < this.#weights.length; i++) this.#weights[i]! *= scale;
      this.#total *= scale;
      this.#sum *= scale;
      this.#squares *= scale;
      this.#reference = mono;
      exponent = 0;
    }
    const weight = 2 ** exponent;
    this.#latest = weight;
    this.#weights[this.#bucketOf(value)]! += weight;
    this.#total += weight;
    this.#sum += weight * value;
    this.#squares += weight * value * value;
  }

  /** The upper bound of the bucket that holds this share of the weight; 0 without samples. */
  quantile(share: number): number {
    let left = share * this.#total;
    for (let i = 0; i < this.#weights.length; i++) {
      left -= this.#weights[i]!;
      if (left <= 1e-9 * this.#total) return this.#first * Math.exp(this.#growth * i);
    }
    return 0;
  }

  mean(): number {
    return this.#total === 0 ? 0 : this.#sum / this.#total;
  }

  deviation(): number {
    if (this.#total === 0) return 0;
    return Math.sqrt(Math.max(0, this.#squares / this.#total - this.mean() ** 2));
  }

  #bucketOf(value: number): number {
    if (value <= this.#first) return 0;
    return Math.min(this.#weights.length - 1, Math.ceil(Math.log(value / this.#first) / this.#growth - 1e-9));
  }
}
