/**
 * A libp2p peer in a web page.
 *
 * ```ts
 * import { Peerloom } from 'peerloom'
 *
 * const node = await Peerloom.create()
 * const peer = await node.dial('/ip4/…/udp/…/quic-v1/webtransport/certhash/…/p2p/12D3…')
 * const stream = await node.openStream(peer.id, '/echo/1.0.0')
 * ```
 *
 * @module
 */
export type { WasmSource } from './core.js'
export { PeerloomError, type PeerloomErrorCode } from './error.js'
export type {
  LostPeer,
  PeerIdentity,
  PeerloomEventMap,
  PeerProtocols,
  RelayReservation,
  TypedEventTarget,
} from './events.js'
export type { ConnectionGate, GatedConnection, GateOptions } from './gate.js'
export type { IdentityOption } from './identity.js'
export {
  type CallOptions,
  type HandleOptions,
  type OpenStreamOptions,
  Peerloom,
  type PeerloomOptions,
  type StreamHandler,
} from './node.js'
export { type CircuitLimit, Peer, type TransportName } from './peer.js'
export type { PeerStoreOption } from './peer_storage.js'
export { PeerloomStream } from './stream.js'
