// js-libp2p with the features that ours has: bundled, it is what is weighed, loaded and measured.
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { webTransport } from '@libp2p/webtransport'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'

export { multiaddr } from '@multiformats/multiaddr'

export async function createPeer() {
  return await createLibp2p({
    transports: [webTransport(), webRTCDirect(), webSockets()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify(), ping: ping() },
    // In a page, js-libp2p refuses loopback addresses unless told otherwise.
    connectionGater: { denyDialMultiaddr: () => false },
  })
}
