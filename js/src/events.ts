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

/** What a peer handles from now on, and no longer. */
export interface PeerProtocols {
  /** The peer id. */
  readonly id: string
  readonly added: readonly string[]
  readonly removed: readonly string[]
}

/** A place at a relay, through which others reach this node. */
export interface RelayReservation {
  /** The peer id of the relay. */
  readonly relay: string
  /** The addresses to give to others. */
  readonly addresses: readonly string[]
  /** Until when, if it is not renewed. It will be. */
  readonly expires: Date
  /** Whether it follows another one without a gap. */
  readonly renewed: boolean
}

/** A peer that is kept, and cannot be reached for now. */
export interface LostPeer {
  /** The peer id. */
  readonly id: string
  /** Why the connection ended, or could not be made. */
  readonly reason: PeerloomError
  /** When the next attempt comes, in milliseconds. */
  readonly retryIn: number
}

/** The events of a node; `detail` has what they tell. */
export interface PeerloomEventMap {
  /** A peer has come: the first connection to it is there. */
  'peer:connect': CustomEvent<Peer>
  /** A peer has gone: the last connection to it is over. */
  'peer:disconnect': CustomEvent<{ peer: Peer; reason: PeerloomError }>
  /**
   * There is no connection to a peer that is kept: it was lost, or an attempt to have it again failed. The next one comes in
   * `retryIn` milliseconds, or earlier if the network or the page comes back.
   */
  'peer:lost': CustomEvent<LostPeer>
  /** A peer has told who it is. */
  'peer:identify': CustomEvent<PeerIdentity>
  /**
   * A peer has told what it handles, or that it handles other protocols now. Of a peer that has just come, all are `added`: whoever
   * looks for peers that speak a protocol hears of each of them here.
   */
  'peer:protocols': CustomEvent<PeerProtocols>
  /** A connection is there, the first to its peer or a further one. */
  'connection:open': CustomEvent<Peer>
  /** A connection is over. */
  'connection:close': CustomEvent<{ peer: Peer; reason: PeerloomError }>
  /** A direct connection has come beside a relayed one. New streams take it; the relayed one is closed once it is idle. */
  'connection:upgraded': CustomEvent<{ peer: Peer; relayed: Peer }>
  /** Somebody wanted to connect to this node, and its rules or its connection gate did not let them. */
  'connection:denied': CustomEvent<{ peer: string | undefined; address: string; reason: PeerloomError }>
  /** A relay has reserved a place for this node, or renewed it: it can be reached at `addresses`. */
  'relay:reserved': CustomEvent<RelayReservation>
  /** A reservation is gone, or was not had again. It is asked for anew after `retryIn` milliseconds, if that is a number. */
  'relay:lost': CustomEvent<{ relay: string; reason: string; retryIn: number | undefined }>
  /** The node is reached at other addresses now; these are all of them. */
  'addresses:change': CustomEvent<readonly string[]>
  /** A handler or a connection gate failed, or (`ERR_PANIC`) the core has stopped. */
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
