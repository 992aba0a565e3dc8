// js-libp2p on Node as a peer program of the matrix; ../README.md has its contract.
//
// usage: node peer.mjs listen ADDR | node peer.mjs dial ADDR [CHECK…]
import { tcp } from '@libp2p/tcp'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { check, createPeer, serve } from './js-libp2p.mjs'

const report = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)
const transports = [tcp(), webSockets(), webRTCDirect()]

const [role, address, ...without] = process.argv.slice(2)
if (role === 'listen') {
  const node = await createPeer({ transports, listen: [address] })
  await serve(node, report)
  report({ event: 'listening', peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
} else if (role === 'dial') {
  report(await check(await createPeer({ transports }), address, without))
} else {
  throw new Error('usage: node peer.mjs listen ADDR | node peer.mjs dial ADDR [CHECK…]')
}

// Nobody is left behind when the runner goes away.
process.stdin.resume().on('end', () => process.exit())
