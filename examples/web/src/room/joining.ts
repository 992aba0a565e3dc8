/** Joining the room of a link: dials the one who invites, and again whenever the direct connection is lost. */
import type { Peerloom } from 'peerloom'
import { pause } from '../waiting.ts'
import { Retries } from './retries.ts'

export type JoiningState =
  | { is: 'dialing' }
  /** Connected directly. */
  | { is: 'joined' }
  /**
   * Nobody answered, or (`relayed`) only the direct connection could not be made. `attempts` have failed since the page was
   * opened or was last joined; the next one comes by itself.
   */
  | { is: 'failed'; relayed: boolean; error: unknown; attempts: number }

/** The relay is the only way. */
export class NoDirectPath extends Error {
  override readonly name = 'NoDirectPath'
  readonly code = 'NO_DIRECT_PATH'
}

/** Longer than all steps of a connection together may take, each of which has a deadline of its own. */
const DIAL_LIMIT_MS = 60_000

export class Joining {
  readonly #node: Peerloom
  readonly #address: string
  /** The one who invites. */
  readonly peer: string
  readonly #onState: (state: JoiningState) => void
  readonly #retries = new Retries()
  #waiting: AbortController | undefined

  constructor(
    node: Peerloom,
    target: { address: string; peer: string },
    onState: (state: JoiningState) => void,
  ) {
    this.#node = node
    // Where there is no WebRTC, the relay is better than nothing.
    this.#address =
      'RTCPeerConnection' in globalThis ? target.address : target.address.replace('/webrtc/p2p/', '/p2p/')
    this.peer = target.peer
    this.#onState = onState
  }

  /** Does not wait any longer before the next attempt. */
  retry(): void {
    this.#waiting?.abort()
  }

  /** Stays in the room for as long as the page lives. */
  async run(): Promise<never> {
    let attempts = 0
    for (;;) {
      this.#onState({ is: 'dialing' })
      try {
        const { direct } = await this.#node.dial(this.#address, {
          signal: AbortSignal.timeout(DIAL_LIMIT_MS),
        })
        if (!direct) throw new NoDirectPath('WebRTC is turned off in this browser')
        attempts = 0
        this.#retries.reset()
        this.#onState({ is: 'joined' })
        await this.#lost()
      } catch (error) {
        attempts += 1
        const wait = this.#retries.next()
        const relayed = this.#connections().length > 0
        this.#onState({ is: 'failed', relayed, error, attempts })
        this.#waiting = new AbortController()
        await pause(wait, this.#waiting.signal)
      }
    }
  }

  /** Waits until there is no direct connection any more. */
  #lost(): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (this.#connections().some(({ direct }) => direct)) return
        this.#node.removeEventListener('connection:close', look)
        resolve()
      }
      this.#node.addEventListener('connection:close', look)
      look()
    })
  }

  #connections() {
    return this.#node.peers.filter(({ id }) => id === this.peer)
  }
}
