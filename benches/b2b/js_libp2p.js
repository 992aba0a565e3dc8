// js-libp2p as a page that is reached through a relay and dialed over WebRTC.
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webRTC } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'

export { multiaddr } from '@multiformats/multiaddr'

export async function createPeer() {
  return await createLibp2p({
    // Where a page can be reached: over WebRTC, wherever it has a reservation.
    addresses: { listen: ['/webrtc'] },
    transports: [webSockets(), circuitRelayTransport(), webRTC()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify(), ping: ping() },
    // By default it takes 5 connections a second from one host, and all that a relay brings are of one.
    connectionManager: { inboundConnectionThreshold: Infinity },
    // In a page, js-libp2p refuses loopback addresses unless told otherwise.
    connectionGater: { denyDialMultiaddr: () => false },
  })
}
