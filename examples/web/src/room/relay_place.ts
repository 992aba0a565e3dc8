/** This page's place at the relay, through which others find it: had once, and kept. */
import type { Peerloom } from 'peerloom'
import { choose, TRANSPORTS, type Transport } from '../addresses.ts'
import { fetchServer } from '../server.ts'
import { pause } from '../waiting.ts'
import { Retries } from './retries.ts'

export type PlaceState =
  | { is: 'asking' }
  /** Others reach this page at `address`. */
  | { is: 'reserved'; address: string }
  /** Nobody finds this page now. `lost`: it had a place. The next attempt comes by itself. */
  | { is: 'failed'; lost: boolean; error: unknown }

/** The relay took the place back, or is gone. */
export class RelayLost extends Error {
  override readonly name = 'RelayLost'
  readonly code = 'RELAY_LOST'
}

/** WebTransport takes the fewest round trips; every browser has WebSocket. */
const PREFERENCE: readonly Transport[] = ['webtransport', 'websocket', ...TRANSPORTS]

export class RelayPlace {
  /** Resolves when the relay has answered for the first time, or has not. */
  readonly tried: Promise<void>
  #endFirstTry!: () => void
  readonly #node: Peerloom
  readonly #onState: (state: PlaceState) => void
  readonly #retries = new Retries()
  #waiting: AbortController | undefined
  #relayAddress = ''
  #state: PlaceState = { is: 'asking' }

  constructor(node: Peerloom, onState: (state: PlaceState) => void) {
    this.#node = node
    this.#onState = onState
    this.tried = new Promise((resolve) => {
      this.#endFirstTry = resolve
    })
    node.addEventListener('relay:reserved', () => this.#reserved())
    node.addEventListener('relay:lost', ({ detail: { reason, retryIn } }) => {
      this.#fail(new RelayLost(reason), true)
      // The node asks again by itself, unless it has given up.
      if (retryIn === undefined) void this.keep()
    })
  }

  get state(): PlaceState {
    return this.#state
  }

  /** Does not wait any longer before the next attempt. Of what the node keeps by itself, it decides. */
  retry(): void {
    this.#waiting?.abort()
  }

  /** Asks for a place until there is one; the node keeps it from then on. */
  async keep(): Promise<void> {
    for (;;) {
      try {
        this.#relayAddress = await relayAddress()
        await this.#node.listen(`${this.#relayAddress}/p2p-circuit`)
        this.#retries.reset()
        this.#reserved()
        return
      } catch (error) {
        const wait = this.#retries.next()
        this.#fail(error, false)
        this.#waiting = new AbortController()
        await pause(wait, this.#waiting.signal)
      }
    }
  }

  /** The relay gives more addresses than this one; it is the one that a browser has just dialed. */
  #reserved(): void {
    this.#become({
      is: 'reserved',
      address: `${this.#relayAddress}/p2p-circuit/webrtc/p2p/${this.#node.peerId}`,
    })
  }

  #fail(error: unknown, lost: boolean): void {
    this.#become({ is: 'failed', lost, error })
  }

  #become(state: PlaceState): void {
    this.#state = state
    this.#onState(state)
    if (state.is !== 'asking') this.#endFirstTry()
  }
}

async function relayAddress(): Promise<string> {
  const { addresses } = await fetchServer()
  for (const transport of PREFERENCE) {
    const choice = choose(transport, addresses)
    if ('address' in choice) return choice.address
  }
  throw new Error('the server has no address that this browser can dial')
}
