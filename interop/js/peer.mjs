// js-libp2p on Node as a peer program of the matrix; ../README.md has its contract.
//
// usage: node peer.mjs listen ADDR | relay ADDR | reserve ADDR relayed|webrtc | dial ADDR [CHECK…]
import { readFileSync } from 'node:fs'
import { noise } from '@libp2p/noise'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { check, createPeer, listening, pathOf, relayServer, serve, throughRelay } from './js-libp2p.mjs'

const report = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)
const { security = 'noise', swarm_key } = process.env
// The others refuse to be in a private network.
const transports = swarm_key ? [tcp(), webSockets()] : [tcp(), webSockets(), webRTCDirect()]
const protection = {
  connectionEncrypters: [{ noise, tls }[security]()],
  ...(swarm_key && { connectionProtector: preSharedKey({ psk: readFileSync(swarm_key) }) }),
}

const [role, address, ...rest] = process.argv.slice(2)
const roles = {
  async listen() {
    const node = await createPeer({ transports, protection, listen: [address] })
    await serve(node, report)
    report(listening(node))
  },
  async relay() {
    const node = await createPeer({ transports, listen: [address], services: relayServer() })
    report(listening(node))
  },
  async reserve() {
    const node = await createPeer({ transports, path: rest[0], listen: throughRelay(address, rest[0]) })
    await serve(node, report)
    report(listening(node))
  },
  async dial() {
    report(await check(await createPeer({ transports, protection, path: pathOf(address) }), address, rest))
  },
}
if (roles[role] === undefined) throw new Error('usage: node peer.mjs listen|relay|reserve|dial ADDR [CHECK…]')
await roles[role]()

// Nobody is left behind when the runner goes away.
process.stdin.resume().on('end', () => process.exit())
