/** The last minute of round trips, as SVG: sharp at every size, and in the colours of the page's style sheet. */
import { formatMilliseconds } from './format.ts'

const SPAN_MS = 60_000
/** Between two samples further apart than this, nothing was measured: the line is interrupted. */
const GAP_MS = 2_000
const MARGIN = { left: 52, right: 10, top: 10, bottom: 24 }

export interface Sample {
  /** As of `performance.now()`. */
  time: number
  milliseconds: number
}

export class Plot {
  readonly #container: HTMLElement
  #samples: readonly Sample[] = []

  constructor(container: HTMLElement) {
    this.#container = container
    new ResizeObserver(() => this.draw(this.#samples)).observe(container)
  }

  /** Draws those `samples` that are not older than the span, up to now. */
  draw(samples: readonly Sample[]): void {
    const now = performance.now()
    this.#samples = samples.filter(({ time }) => now - time < SPAN_MS)
    const { width, height } = this.#container.getBoundingClientRect()
    if (width === 0) return
    const right = width - MARGIN.right
    const bottom = height - MARGIN.bottom
    const last = this.#samples.at(-1)
    const ticks = niceTicks(Math.max(0, ...this.#samples.map(({ milliseconds }) => milliseconds)))
    const x = (time: number) => right - ((now - time) / SPAN_MS) * (right - MARGIN.left)
    const y = (milliseconds: number) => bottom - (milliseconds / (ticks.at(-1) ?? 1)) * (bottom - MARGIN.top)

    const parts: string[] = []
    for (const tick of ticks) {
      parts.push(
        `<line class="grid" x1="${MARGIN.left}" x2="${right}" y1="${round(y(tick))}" y2="${round(y(tick))}"/>`,
      )
      if (last) parts.push(label(MARGIN.left - 8, y(tick) + 4, 'end', `${tick} ms`))
    }
    parts.push(label(MARGIN.left, height - 4, 'start', '60 s ago'), label(right, height - 4, 'end', 'now'))
    if (last) {
      for (const run of runs(this.#samples)) {
        const points = run.map((sample) => `${round(x(sample.time))} ${round(y(sample.milliseconds))}`)
        const line = `M${points.join('L')}`
        const start = run[0]?.time ?? 0
        const end = run.at(-1)?.time ?? 0
        parts.push(
          `<path class="area" d="${line}V${bottom}H${round(x(start))}Z"/><path class="line" d="${line}"/>`,
        )
        if (end === last.time) {
          parts.push(`<circle class="last" cx="${round(x(end))}" cy="${round(y(last.milliseconds))}" r="4"/>`)
        }
      }
    } else {
      const middle = (MARGIN.left + right) / 2
      parts.push(
        `<g class="empty">${label(middle, MARGIN.top + (bottom - MARGIN.top) * 0.375 + 5, 'middle', 'Nothing measured yet')}</g>`,
      )
    }
    const summary = last
      ? `Round-trip times of the last minute, the latest ${formatMilliseconds(last.milliseconds)}`
      : 'No round-trip times yet'
    this.#container.innerHTML = `<svg role="img" aria-label="${summary}">${parts.join('')}</svg>`
  }
}

/** Splits where measuring was interrupted. */
function runs(samples: readonly Sample[]): Sample[][] {
  const found: Sample[][] = []
  for (const sample of samples) {
    const run = found.at(-1)
    const before = run?.at(-1)
    if (run && before && sample.time - before.time <= GAP_MS) run.push(sample)
    else found.push([sample])
  }
  return found
}

/** From 0, in four steps of 1, 2 or 5 times a power of ten, to at least `highest`. */
function niceTicks(highest: number): number[] {
  const wanted = Math.max(highest, 0.2) / 4
  const power = 10 ** Math.floor(Math.log10(wanted))
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= wanted) ?? 10) * power
  return [0, 1, 2, 3, 4].map((index) => Number((index * step).toPrecision(3)))
}

const label = (x: number, y: number, anchor: string, text: string) =>
  `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}">${text}</text>`

const round = (value: number) => value.toFixed(1)
