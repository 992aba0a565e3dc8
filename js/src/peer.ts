import type { CoreConnection } from '../generated/peerloom_wasm.js'
import { asyncDispose } from './dispose.js'
import type { OpenStreamOptions, Peerloom } from './node.js'
import type { PeerloomStream } from './stream.js'

/** Over what a peer is connected. */
export type TransportName = CoreConnection['transport']

/** What a relay lets a connection carry before it ends it. */
export interface CircuitLimit {
  /** The peer id of the relay. */
  readonly relay: string
  /** Bytes that are left, in the direction that has carried more; `undefined` without a limit. */
  readonly bytes: number | undefined
  /** Time that is left; `undefined` without a limit. */
  readonly milliseconds: number | undefined
}

/** A peer, over one connection. */
export class Peer {
  /** The peer id: who the peer has proved to be. */
  readonly id: string
  /** The address that was dialed, without `/p2p/…`. */
  readonly address: string
  readonly transport: TransportName
  /** Who dialed. */
  readonly direction: 'inbound' | 'outbound'
  /** Whether bytes take no detour through a relay. */
  readonly direct: boolean
  /**
   * Whether a relay limits the connection: {@link circuit} has what is left. Only protocols that say `limited: true` run on it;
   * others wait for the direct connection that is being made, or fail with `ERR_LIMITED_CONNECTION`.
   */
  readonly limited: boolean
  readonly #node: Peerloom
  readonly #connection: number

  /** @internal */
  constructor(node: Peerloom, connection: CoreConnection) {
    this.#node = node
    this.#connection = connection.id
    this.id = connection.peer
    this.address = connection.address
    this.transport = connection.transport
    this.direction = connection.direction
    this.direct = connection.direct
    this.limited = connection.limited
  }

  /** The relay between, and what it lets this connection still carry; `undefined` if it is direct or over. */
  get circuit(): CircuitLimit | undefined {
    return this.#node.circuit(this)
  }

  /** A number that names the connection within its node. */
  get connectionId(): number {
    return this.#connection
  }

  /**
   * Opens a stream for the first of `protocols` that the peer handles: on this connection if it is direct, otherwise on the
   * best one to the peer that there is by then.
   */
  openStream(protocols: string | readonly string[], options?: OpenStreamOptions): Promise<PeerloomStream> {
    return this.#node.openStream(this, protocols, options)
  }

  /** The round-trip time on this connection, in milliseconds. */
  ping(options?: { signal?: AbortSignal }): Promise<number> {
    return this.#node.ping(this, options)
  }

  /** Closes this connection, in an orderly way. */
  close(options?: { signal?: AbortSignal }): Promise<void> {
    return this.#node.disconnect(this, options)
  }

  [asyncDispose](): Promise<void> {
    return this.close()
  }
}
