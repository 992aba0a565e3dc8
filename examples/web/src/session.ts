/** The connection of this page: what it is doing, and whether the server still answers. */
import type { Peer, Peerloom } from 'peerloom'
import { roundTrips } from './round_trip.ts'

export type State =
  | { is: 'disconnected' }
  | { is: 'connecting'; address: string }
  /** `silent`: the server has not answered for longer than is usual. */
  | { is: 'connected'; address: string; peer: Peer; silent: boolean }
  /** The dial failed, or the connection that was there is `lost`. */
  | { is: 'failed'; address: string; lost: boolean; error: unknown }

/** The server is gone without a word. */
export class ServerSilent extends Error {
  override readonly name = 'ServerSilent'
  readonly code = 'SERVER_SILENT'
}

/** After this long without an answer the page says so, */
const SILENT_MS = 2_000
/** and after this long it gives up. */
const LOST_MS = 6_000
const WATCH_MS = 500
/** Before a stream of pings that ended is opened again. */
const RETRY_MS = 1_000

export class Session {
  readonly #node: Peerloom
  readonly #onState: (state: State) => void
  readonly #onRoundTrip: (milliseconds: number) => void
  #state: State = { is: 'disconnected' }
  #lastHeard = 0
  /** Ends whatever belongs to the present connection, or to the attempt at one. */
  #ending = new AbortController()

  constructor(node: Peerloom, onState: (state: State) => void, onRoundTrip: (milliseconds: number) => void) {
    this.#node = node
    this.#onState = onState
    this.#onRoundTrip = onRoundTrip
    node.addEventListener('connection:close', ({ detail: { peer, reason } }) => {
      if (this.#state.is === 'connected' && peer.connectionId === this.#state.peer.connectionId)
        this.#lose(reason)
    })
  }

  get state(): State {
    return this.#state
  }

  /** Aborts when the present connection ends, for whatever reason. */
  get signal(): AbortSignal {
    return this.#ending.signal
  }

  async connect(address: string): Promise<void> {
    this.#ending = new AbortController()
    const { signal } = this.#ending
    this.#become({ is: 'connecting', address })
    try {
      const peer = await this.#node.dial(address, { signal })
      this.#become({ is: 'connected', address, peer, silent: false })
      this.heard()
      void this.#watch(signal)
      void this.#ping(peer, signal)
    } catch (error) {
      this.#become(signal.aborted ? { is: 'disconnected' } : { is: 'failed', address, lost: false, error })
    }
  }

  /** Gives up connecting, or closes the connection. */
  async disconnect(): Promise<void> {
    const state = this.#state
    this.#ending.abort(new DOMException('disconnected by the user', 'AbortError'))
    if (state.is !== 'connected') return
    this.#become({ is: 'disconnected' })
    await state.peer.close()
  }

  /** Something came from the server just now. */
  heard(): void {
    this.#lastHeard = performance.now()
  }

  async #ping(peer: Peer, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        for await (const milliseconds of roundTrips(peer, signal)) {
          this.heard()
          this.#onRoundTrip(milliseconds)
        }
      } catch (error) {
        if (!signal.aborted) console.warn('pings ended:', error)
      }
      await sleep(RETRY_MS)
    }
  }

  async #watch(signal: AbortSignal): Promise<void> {
    let expected = performance.now() + WATCH_MS
    for (;;) {
      await sleep(WATCH_MS)
      if (signal.aborted || this.#state.is !== 'connected') return
      // A page in the background, or on a machine that slept, is late itself: no evidence against the server.
      const now = performance.now()
      if (now - expected > WATCH_MS) this.heard()
      expected = now + WATCH_MS

      const silence = now - this.#lastHeard
      if (silence > LOST_MS) {
        const { peer } = this.#state
        this.#lose(new ServerSilent(`the server has not answered for ${LOST_MS / 1000} seconds`))
        await peer.close()
        return
      }
      const silent = silence > SILENT_MS
      if (silent !== this.#state.silent) this.#become({ ...this.#state, silent })
    }
  }

  #lose(error: unknown): void {
    if (this.#state.is !== 'connected') return
    this.#become({ is: 'failed', address: this.#state.address, lost: true, error })
    this.#ending.abort(error)
  }

  #become(state: State): void {
    this.#state = state
    this.#onState(state)
  }
}

const sleep = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds))
