// js-libp2p in a page, as a dialer of the matrix.
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { webTransport } from '@libp2p/webtransport'
import { check, createPeer } from '../js-libp2p.mjs'

window.check = async (address, without) => {
  const node = await createPeer({ transports: [webSockets(), webRTCDirect(), webTransport()] })
  return await check(node, address, without)
}
