// What js-libp2p is in libp2p's test-plans, on Node and in a page.
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

export async function createPinger(transport, encrypter, listen) {
  return await createLibp2p({
    addresses: { listen },
    transports: [transport],
    connectionEncrypters: [encrypter],
    streamMuxers: [yamux()],
    services: { identify: identify(), ping: ping() },
    // It would ping, too.
    connectionMonitor: { enabled: false },
    // In a page, js-libp2p refuses loopback addresses unless told otherwise.
    connectionGater: { denyDialMultiaddr: () => false },
  })
}

/** Milliseconds: of the dial and one ping, and of that ping alone. */
export async function dialAndPing(node, address) {
  const start = performance.now()
  const connection = await node.dial(multiaddr(address))
  const connected = performance.now()
  await node.services.ping.ping(connection.remotePeer)
  const end = performance.now()
  return { handshake: end - start, ping: end - connected }
}
