// js-libp2p in a page as a dialer of libp2p's test-plans.
import { noise } from '@libp2p/noise'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { webTransport } from '@libp2p/webtransport'
import { createPinger, dialAndPing } from '../test-plans/pinger.mjs'

const TRANSPORTS = {
  ws: webSockets,
  wss: webSockets,
  webtransport: webTransport,
  'webrtc-direct': webRTCDirect,
}

window.dialAndPing = async (address, { transport, security }) => {
  if (TRANSPORTS[transport] === undefined) throw new Error(`no transport ${transport} in a page`)
  if (security && security !== 'noise') throw new Error(`no security ${security} in a page`)
  return await dialAndPing(await createPinger(TRANSPORTS[transport](), noise(), []), address)
}
