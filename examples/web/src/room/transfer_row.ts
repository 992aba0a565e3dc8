/** One file on its way, in either direction: what it is, how far it is, and what can be done about it. */
import { formatBytes, formatSeconds } from '../format.ts'
import type { Digests } from './file_protocol.ts'
import { problemOf } from './problem.ts'

const REDRAW_MS = 100
/** The rate is that of the last seconds, so that it shows what happens now. */
const RATE_SPAN_MS = 3_000

export class TransferRow {
  readonly item = document.createElement('li')
  readonly #size: number
  readonly #bar = document.createElement('progress')
  readonly #state = document.createElement('p')
  readonly #buttons = document.createElement('div')
  readonly #cancelling = new AbortController()
  #redrawing: ReturnType<typeof setInterval> | undefined
  #start = 0
  #stored = 0
  #history: { time: number; stored: number }[] = []

  constructor(direction: 'going' | 'returning', name: string, size: number, about: string) {
    this.#size = size
    this.item.className = direction
    const title = document.createElement('h3')
    title.textContent = name
    const note = document.createElement('p')
    note.className = 'note'
    note.textContent = `${formatBytes(size)} ${about}`
    this.#bar.max = Math.max(size, 1)
    this.#bar.hidden = true
    this.#bar.ariaLabel = name
    this.#state.className = 'state'
    this.#state.setAttribute('role', 'status')
    this.#buttons.className = 'actions'
    this.item.append(title, note, this.#bar, this.#state, this.#buttons)
  }

  /** Aborts when the user cancels. */
  get signal(): AbortSignal {
    return this.#cancelling.signal
  }

  /** Before the first byte; can be cancelled. */
  waiting(text: string): void {
    this.item.dataset.state = 'waiting'
    this.#state.textContent = text
    this.#offerCancel()
  }

  /** Asks whether the file is wanted; `false` too if the offer is over before an answer. */
  ask(over: AbortSignal): Promise<boolean> {
    this.item.dataset.state = 'offered'
    this.#state.textContent = ''
    return new Promise((resolve) => {
      over.addEventListener('abort', () => resolve(false), { once: true })
      this.#buttons.replaceChildren(
        button('Accept', () => resolve(true), 'primary'),
        button('Decline', () => resolve(false)),
      )
    })
  }

  /** Some bytes, perhaps none yet, are stored at the receiver. */
  progress(stored: number): void {
    this.#stored = stored
    if (this.item.dataset.state === 'running') return
    this.item.dataset.state = 'running'
    this.#start = performance.now()
    this.#bar.hidden = false
    this.#offerCancel()
    this.#redrawing = setInterval(() => this.#draw(), REDRAW_MS)
    this.#draw()
  }

  done({ sent, received }: Digests): void {
    const seconds = (performance.now() - this.#start) / 1000
    this.#stop('done')
    this.#bar.value = this.#bar.max
    const rate = formatBytes(this.#size / Math.max(seconds, 0.001))
    const code = document.createElement('code')
    code.textContent = sent
    if (sent === received) {
      this.#state.classList.add('good')
      this.#state.replaceChildren(
        `✓ ${formatBytes(this.#size)} in ${seconds.toFixed(1)} s, ${rate}/s. Both pages have the same SHA-256: `,
        code,
      )
      return
    }
    const other = document.createElement('code')
    other.textContent = received
    this.item.dataset.state = 'failed'
    this.#state.classList.add('bad')
    this.#state.replaceChildren(
      '✗ The hashes differ, something changed the file on its way. Sent: ',
      code,
      ' received: ',
      other,
    )
  }

  /** Adds what can be done with the file that has come. */
  offer(...actions: HTMLElement[]): void {
    this.#buttons.replaceChildren(...actions)
  }

  ended(error: unknown): void {
    const after = this.#stored > 0 ? ` after ${formatBytes(this.#stored)}` : ''
    if (this.signal.aborted) {
      this.#stop('cancelled')
      this.#state.textContent = `Cancelled${after}.`
      return
    }
    const { code, message, advice } = problemOf(error)
    // A page that cancels resets the stream.
    if (code === 'ERR_STREAM_RESET') {
      this.#stop('cancelled')
      this.#state.textContent = `The other page cancelled${after}.`
      return
    }
    this.#stop(code === 'FILE_DECLINED' ? 'cancelled' : 'failed')
    if (code === 'FILE_DECLINED') {
      this.#state.textContent = 'Declined by the other page.'
      return
    }
    const shown = document.createElement('code')
    shown.textContent = code
    this.#state.classList.add('bad')
    this.#state.replaceChildren(`Failed${after}. ${advice} `, shown, ` ${message}`)
  }

  /** The user said no to it. */
  declined(): void {
    this.#stop('cancelled')
    this.#state.textContent = 'Declined.'
  }

  #offerCancel(): void {
    // The button that had the focus is about to go: its place in the order of keys is this one.
    const focused = this.#buttons.contains(document.activeElement)
    const cancel = button('Cancel', () =>
      this.#cancelling.abort(new DOMException('cancelled by the user', 'AbortError')),
    )
    this.#buttons.replaceChildren(cancel)
    if (focused) cancel.focus()
  }

  #stop(state: 'done' | 'cancelled' | 'failed'): void {
    clearInterval(this.#redrawing)
    this.#bar.value = this.#stored
    this.item.dataset.state = state
    this.#buttons.replaceChildren()
    this.#state.className = 'state'
  }

  #draw(): void {
    const now = performance.now()
    this.#history.push({ time: now, stored: this.#stored })
    while (now - (this.#history[0]?.time ?? now) > RATE_SPAN_MS) this.#history.shift()
    const oldest = this.#history[0] ?? { time: now, stored: 0 }
    const rate = ((this.#stored - oldest.stored) / Math.max(now - oldest.time, 1)) * 1000
    const left = rate > 0 ? `, ${formatSeconds((this.#size - this.#stored) / rate)} left` : ''
    this.#bar.value = this.#stored
    this.#state.textContent = `${formatBytes(this.#stored)}, ${formatBytes(rate)}/s${left}`
  }
}

export function button(label: string, action: () => void, className = ''): HTMLButtonElement {
  const made = document.createElement('button')
  made.type = 'button'
  made.textContent = label
  made.className = className
  made.addEventListener('click', action)
  return made
}
