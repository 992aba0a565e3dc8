import type { CoreConnection } from '../generated/peerloom_wasm.js'
import { asyncDispose } from './dispose.js'
import type { OpenStreamOptions, Peerloom } from './node.js'
import type { PeerloomStream } from './stream.js'

/** Over what a peer is connected. */
export type TransportName = CoreConnection['transport']

/** A peer, over one connection. */
export class Peer {
  /** The peer id: who the peer has proved to be. */
  readonly id: string
  /** The address that was dialed, without `/p2p/…`. */
  readonly address: string
  readonly transport: TransportName
  /** Who dialed. */
  readonly direction: 'inbound' | 'outbound'
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
  }

  /** A number that names the connection within its node. */
  get connectionId(): number {
    return this.#connection
  }

  /** Opens a stream on this connection for the first of `protocols` that the peer handles. */
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
