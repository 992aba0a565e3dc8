import type { PeerloomError } from './error.js'
import type { Peer } from './peer.js'

/** What identify told of a peer. */
export interface PeerIdentity {
  /** The peer id. */
  readonly id: string
  /** The protocols that the peer handles. */
  readonly protocols: readonly string[]
  /** The addresses at which it is believed to be reached. */
  readonly addresses: readonly string[]
  /** Its software, as it calls itself. */
  readonly agentVersion: string | undefined
  readonly protocolVersion: string | undefined
  /** Our own address as the peer sees it. */
  readonly observedAddress: string | undefined
}

/** The events of a node; `detail` has what they tell. */
export interface PeerloomEventMap {
  /** A peer has come: the first connection to it is there. */
  'peer:connect': CustomEvent<Peer>
  /** A peer has gone: the last connection to it is over. */
  'peer:disconnect': CustomEvent<{ peer: Peer; reason: PeerloomError }>
  /** A peer has told who it is. */
  'peer:identify': CustomEvent<PeerIdentity>
  /** A connection is there, the first to its peer or a further one. */
  'connection:open': CustomEvent<Peer>
  /** A connection is over. */
  'connection:close': CustomEvent<{ peer: Peer; reason: PeerloomError }>
  /** A handler failed, or (`ERR_PANIC`) the core has stopped. */
  error: CustomEvent<unknown>
}

type Listener<E> = ((event: E) => void) | { handleEvent(event: E): void }

/** An `EventTarget` that knows its events. */
export interface TypedEventTarget<Map> {
  addEventListener<K extends keyof Map & string>(
    type: K,
    listener: Listener<Map[K]> | null,
    options?: boolean | AddEventListenerOptions,
  ): void
  removeEventListener<K extends keyof Map & string>(
    type: K,
    listener: Listener<Map[K]> | null,
    options?: boolean | EventListenerOptions,
  ): void
}
