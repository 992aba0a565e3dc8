// js-libp2p in a page: a dialer of the matrix, and a listener behind a relay.
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { webTransport } from '@libp2p/webtransport'
import { check, createPeer, listening, pathOf, serve, throughRelay } from '../js-libp2p.mjs'

const transports = [webSockets(), webRTCDirect(), webTransport()]

window.check = async (address, without) =>
  await check(await createPeer({ transports, path: pathOf(address) }), address, without)

window.listen = async (relay, path, report) => {
  const node = await createPeer({ transports, path, listen: throughRelay(relay, path) })
  await serve(node, report)
  return listening(node)
}
