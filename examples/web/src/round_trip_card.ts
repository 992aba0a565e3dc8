/** The card that shows round trips: the last, the median, the least, and a plot. */
import { element } from './elements.ts'
import { formatMilliseconds } from './format.ts'
import { Plot, type Sample } from './plot.ts'

const REDRAW_MS = 500
/** The plot shows a minute, at two samples a second. */
const KEPT = 120

/** `samples` with one more, taken now; without the oldest. */
export function withSample(samples: readonly Sample[], milliseconds: number): readonly Sample[] {
  return [...samples, { time: performance.now(), milliseconds }].slice(-KEPT)
}

export class RoundTripCard {
  readonly #plot = new Plot(element('plot'))
  #samples: readonly Sample[] = []

  constructor() {
    this.#plot.draw(this.#samples)
    // The plot moves on without new samples.
    setInterval(() => this.#plot.draw(this.#samples), REDRAW_MS)
  }

  show(samples: readonly Sample[]): void {
    const last = samples.at(-1)
    // What is shown already needs no drawing.
    if (last === this.#samples.at(-1)) return
    this.#samples = samples
    const sorted = samples.map((sample) => sample.milliseconds).sort((one, other) => one - other)
    const figures = {
      'rtt-last': last?.milliseconds,
      'rtt-median': sorted[Math.floor(sorted.length / 2)],
      'rtt-min': sorted[0],
    }
    for (const [id, figure] of Object.entries(figures))
      element(id).textContent = figure === undefined ? '–' : formatMilliseconds(figure)
    this.#plot.draw(samples)
  }
}
