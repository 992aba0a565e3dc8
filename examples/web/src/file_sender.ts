/** The card that sends a file: choosing, progress, cancel, and the comparison of the hashes. */
import { acceptDrops, element } from './elements.ts'
import { formatBytes, formatSeconds } from './format.ts'
import { problemOf } from './problem.ts'
import type { Session } from './session.ts'
import { type Hashes, sendThereAndBack } from './transfer.ts'

const REDRAW_MS = 100
/** The rate is that of the last seconds, so that it shows what happens now. */
const RATE_SPAN_MS = 3_000

export class FileSender {
  readonly #session: Session
  #file: File | undefined
  #transfer: AbortController | undefined
  readonly #input = element<HTMLInputElement>('file')
  readonly #send = element<HTMLButtonElement>('send')
  readonly #cancel = element<HTMLButtonElement>('cancel')

  constructor(session: Session) {
    this.#session = session
    this.#input.addEventListener('change', () => this.#choose(this.#input.files?.[0]))
    this.#send.addEventListener('click', () => void this.#run())
    this.#cancel.addEventListener('click', () =>
      this.#transfer?.abort(new DOMException('cancelled', 'AbortError')),
    )
    acceptDrops(
      element('drop'),
      () => this.#transfer === undefined,
      ([file]) => this.#choose(file),
    )
    this.update()
  }

  /** Fits the card to the state of the session. */
  update(): void {
    const connected = this.#session.state.is === 'connected'
    const running = this.#transfer !== undefined
    this.#send.hidden = running
    this.#send.disabled = !connected || this.#file === undefined
    this.#cancel.hidden = !running
    this.#input.disabled = running
    element('send-note').textContent = this.#file && !connected ? 'Connect first.' : ''
  }

  #choose(file: File | undefined): void {
    if (!file || this.#transfer) return
    this.#file = file
    element('file-name').textContent = file.name
    element('file-about').textContent = `${formatBytes(file.size)}. Choose or drop another to replace it.`
    element('transfer').hidden = true
    this.update()
  }

  async #run(): Promise<void> {
    const { state } = this.#session
    const file = this.#file
    if (!file || state.is !== 'connected') return
    const transfer = new AbortController()
    this.#transfer = transfer
    const signal = AbortSignal.any([transfer.signal, this.#session.signal])
    const view = new TransferView(file.size)
    // The button that had the focus is about to go: its place in the order of keys is this one.
    const focused = document.activeElement === this.#send
    this.update()
    if (focused) this.#cancel.focus()
    try {
      const hashes = await sendThereAndBack(state.peer, file, {
        signal,
        onProgress: (sent, returned) => {
          if (returned > view.returned) this.#session.heard()
          view.progress(sent, returned)
        },
      })
      view.done(hashes)
    } catch (error) {
      const { is } = this.#session.state
      // A user who disconnects wants the transfer to end too.
      if (transfer.signal.aborted || is === 'disconnected') view.cancelled()
      else view.failed(error, is === 'failed')
    } finally {
      this.#transfer = undefined
      const focused = document.activeElement === this.#cancel
      this.update()
      if (focused) this.#send.focus()
    }
  }
}

/** What is shown of one transfer. */
class TransferView {
  readonly #size: number
  readonly #start = performance.now()
  readonly #redrawing: ReturnType<typeof setInterval>
  readonly #history: { time: number; returned: number }[] = []
  #sent = 0
  #returned = 0

  /** Bytes that came back. */
  get returned(): number {
    return this.#returned
  }

  constructor(size: number) {
    this.#size = size
    for (const id of ['sent', 'returned']) element<HTMLProgressElement>(id).max = Math.max(size, 1)
    element('transfer').hidden = false
    element('hashes').hidden = true
    element('outcome').textContent = ''
    this.#draw()
    this.#redrawing = setInterval(() => this.#draw(), REDRAW_MS)
  }

  progress(sent: number, returned: number): void {
    this.#sent = sent
    this.#returned = returned
  }

  done(hashes: Hashes): void {
    const seconds = (performance.now() - this.#start) / 1000
    const rate = formatBytes(this.#size / Math.max(seconds, 0.001))
    this.#end(`${formatBytes(this.#size)} there and back in ${seconds.toFixed(1)} s, ${rate}/s each way`)
    element('hash-sent').textContent = hashes.sent
    element('hash-received').textContent = hashes.received
    element('hash-returned').textContent = hashes.returned
    const values = [hashes.sent, hashes.received, hashes.returned]
    element('hashes')
      .querySelectorAll('.mark')
      .forEach((mark, index) => {
        const equal = values[index] === hashes.sent
        mark.innerHTML = equal
          ? '<span class="good" role="img" aria-label="equal">✓</span>'
          : '<span class="bad" role="img" aria-label="different">✗</span>'
      })
    element('hashes').hidden = false
    if (values.every((value) => value === hashes.sent)) {
      outcome(
        'good',
        '✓ All three hashes are equal: what the server received and what came back is what was sent.',
      )
    } else {
      outcome('bad', '✗ The hashes differ: something changed the file on its way.')
    }
  }

  cancelled(): void {
    this.#end('')
    outcome('', `Cancelled after ${formatBytes(this.#returned)} had returned.`)
  }

  /** What to do about a connection that is `lost`, the page says elsewhere. */
  failed(error: unknown, lost: boolean): void {
    this.#end('')
    const { code, message, advice } = problemOf(error)
    const after = `The transfer failed after ${formatBytes(this.#returned)}`
    if (lost) outcome('bad', `${after}: the connection is lost.`)
    else outcome('bad', `${after}. ${advice} `, code, message)
  }

  #end(summary: string): void {
    clearInterval(this.#redrawing)
    this.#draw()
    element('rate').textContent = summary
  }

  #draw(): void {
    const now = performance.now()
    this.#history.push({ time: now, returned: this.#returned })
    while (now - (this.#history[0]?.time ?? now) > RATE_SPAN_MS) this.#history.shift()
    const oldest = this.#history[0] ?? { time: now, returned: 0 }
    const rate = ((this.#returned - oldest.returned) / Math.max(now - oldest.time, 1)) * 1000
    const left = rate > 0 ? `, ${formatSeconds((this.#size - this.#returned) / rate)} left` : ''
    element('rate').textContent = `${formatBytes(rate)}/s each way${left}`
    for (const [id, value] of [
      ['sent', this.#sent],
      ['returned', this.#returned],
    ] as const) {
      // An empty file is complete from the start.
      element<HTMLProgressElement>(id).value = this.#size === 0 ? 1 : value
      element(`${id}-amount`).textContent = `${formatBytes(value)} of ${formatBytes(this.#size)}`
    }
  }
}

function outcome(kind: '' | 'good' | 'bad', text: string, code?: string, detail?: string): void {
  const box = element('outcome')
  box.className = kind
  box.replaceChildren(text)
  if (code !== undefined) {
    const codeElement = document.createElement('code')
    codeElement.textContent = code
    box.append(codeElement, ` ${detail ?? ''}`)
  }
}
