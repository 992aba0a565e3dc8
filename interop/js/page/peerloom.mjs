// Our page as a dialer of the matrix: the npm package as a page imports it that has no bundler.
import { Peerloom } from '/npm/dist/src/index.js'
import { ECHO, ECHO_BYTES, examine, HALF_CLOSE_BYTES, pattern, RESET, sameBytes } from '../contract.mjs'

window.check = async (address, without) => {
  const node = await Peerloom.create({ identity: 'ephemeral' })
  // Told before `dial` returns, perhaps.
  const identified = new Promise((resolve) => {
    node.addEventListener('peer:identify', ({ detail }) => resolve(detail))
  })
  let peer
  return await examine(node.peerId, without, {
    async connect(signal) {
      peer = await node.dial(address, { signal })
      return { remote: peer.id }
    },
    async identify() {
      const { protocols, addresses, observedAddress } = await identified
      return { protocols, addresses, observed: observedAddress }
    },
    async ping(signal) {
      return { ms: await peer.ping({ signal }) }
    },
    async echo(signal) {
      const stream = await peer.openStream(ECHO, { signal })
      const sent = pattern(ECHO_BYTES)
      const reader = stream.readable.getReader()
      const writer = stream.writable.getWriter()
      const [received] = await Promise.all([readExactly(reader, sent.length), writer.write(sent)])
      await writer.close()
      return { equal: sameBytes(sent, received), end: await ending(reader) }
    },
    async 'half-close'(signal) {
      const stream = await peer.openStream(ECHO, { signal })
      const sent = pattern(HALF_CLOSE_BYTES)
      const writer = stream.writable.getWriter()
      await writer.write(sent)
      await writer.close()
      const reader = stream.readable.getReader()
      const received = await readExactly(reader, sent.length)
      return { equal: sameBytes(sent, received), end: await ending(reader) }
    },
    async reset(signal) {
      const stream = await peer.openStream(ECHO, { signal })
      await stream.writable.getWriter().write(pattern(1))
      const reader = stream.readable.getReader()
      await readExactly(reader, 1)
      stream.abort()
      return {}
    },
    async 'remote reset'(signal) {
      const stream = await peer.openStream(RESET, { signal })
      const writer = stream.writable.getWriter()
      // It fails if the listener is quicker.
      writer.write(pattern(1)).catch(() => {})
      return { end: await ending(stream.readable.getReader()) }
    },
    async 'still alive'(signal) {
      return { ms: await peer.ping({ signal }) }
    },
  })
}

async function readExactly(reader, length) {
  const received = new Uint8Array(length)
  let at = 0
  while (at < length) {
    const { value, done } = await reader.read()
    if (done) throw new Error(`the stream ended after ${at} of ${length} bytes`)
    if (at + value.length > length) throw new Error(`more than ${length} bytes came back`)
    received.set(value, at)
    at += value.length
  }
  return received
}

/** `closed`, `reset`, `unsupported`, or how many bytes came instead. */
async function ending(reader) {
  try {
    const { value, done } = await reader.read()
    return done ? 'closed' : `${value.length} more bytes`
  } catch (error) {
    const end = { ERR_STREAM_RESET: 'reset', ERR_PROTOCOL_NOT_SUPPORTED: 'unsupported' }[error.code]
    if (end === undefined) throw error
    return end
  }
}
