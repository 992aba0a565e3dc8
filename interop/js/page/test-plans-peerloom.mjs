// Our page as the dialer of libp2p's test-plans: the npm package as a page imports it that has no bundler.
import { Peerloom } from '/npm/dist/src/index.js'

const PING = '/ipfs/ping/1.0.0'
const PING_BYTES = 32

window.dialAndPing = async (address) => {
  const node = await Peerloom.create({ identity: 'ephemeral' })
  const start = performance.now()
  const peer = await node.dial(address)
  const opened = performance.now()
  // Not `peer.ping()`, which has the round trip of the stream's negotiation behind it.
  const stream = await peer.openStream(PING)
  const sent = crypto.getRandomValues(new Uint8Array(PING_BYTES))
  const writer = stream.writable.getWriter()
  await writer.write(sent)
  const reader = stream.readable.getReader()
  const received = []
  while (received.length < PING_BYTES) {
    const { value, done } = await reader.read()
    if (done) throw new Error('the stream ended before the answer')
    received.push(...value)
  }
  const end = performance.now()
  if (String(received) !== String(sent)) throw new Error('the ping came back changed')
  return { handshake: end - start, ping: end - opened }
}
