// Our page as a dialer of the matrix, and as a listener behind a relay: the npm package as a page imports it that has no bundler.
import { Peerloom } from '/npm/dist/src/index.js'
import { ECHO, examine, OVER_LIMIT_BYTES, pattern, RESET, sameBytes, sizes, targetOf } from '../contract.mjs'

window.check = async (address, without) => {
  const node = await Peerloom.create({ identity: 'ephemeral' })
  // Told before `dial` returns, perhaps.
  const identified = new Promise((resolve) => {
    node.addEventListener('peer:identify', ({ detail }) => {
      if (detail.id === targetOf(address)) resolve(detail)
    })
  })
  let peer
  let limits
  const over = new Promise((resolve) => {
    node.addEventListener('connection:close', ({ detail }) => {
      if (detail.peer === peer) resolve(detail.reason)
    })
  })
  return await examine(node.peerId, without, {
    async connect(signal) {
      peer = await node.dial(address, { signal })
      const { bytes, milliseconds } = peer.circuit ?? {}
      if (peer.limited) limits = { bytes, seconds: milliseconds / 1000 }
      return { remote: peer.id, direct: peer.direct, limits }
    },
    async identify() {
      const { protocols, addresses, observedAddress } = await identified
      return { protocols, addresses, observed: observedAddress }
    },
    async ping(signal) {
      return { ms: await peer.ping({ signal }) }
    },
    async echo(signal) {
      const stream = await peer.openStream(ECHO, { signal, limited: true })
      const sent = pattern(sizes(limits).echo)
      const reader = stream.readable.getReader()
      const writer = stream.writable.getWriter()
      const [received] = await Promise.all([readExactly(reader, sent.length), writer.write(sent)])
      await writer.close()
      return { equal: sameBytes(sent, received), end: await ending(reader) }
    },
    async 'half-close'(signal) {
      const stream = await peer.openStream(ECHO, { signal, limited: true })
      const sent = pattern(sizes(limits).halfClose)
      const writer = stream.writable.getWriter()
      await writer.write(sent)
      await writer.close()
      const reader = stream.readable.getReader()
      const received = await readExactly(reader, sent.length)
      return { equal: sameBytes(sent, received), end: await ending(reader) }
    },
    async reset(signal) {
      const stream = await peer.openStream(ECHO, { signal, limited: true })
      await stream.writable.getWriter().write(pattern(1))
      const reader = stream.readable.getReader()
      await readExactly(reader, 1)
      stream.abort()
      return {}
    },
    async 'remote reset'(signal) {
      let stream
      try {
        stream = await peer.openStream(RESET, { signal })
      } catch (error) {
        if (error.code === 'ERR_LIMITED_CONNECTION') return { end: 'limited' }
        throw error
      }
      const writer = stream.writable.getWriter()
      // It fails if the listener is quicker.
      writer.write(pattern(1)).catch(() => {})
      return { end: await ending(stream.readable.getReader()) }
    },
    async 'still alive'(signal) {
      return { ms: await peer.ping({ signal }) }
    },
    async 'over limit'(signal) {
      const stream = await peer.openStream(ECHO, { signal, limited: true })
      const writing = stream.writable.getWriter().write(pattern(OVER_LIMIT_BYTES))
      const reading = readExactly(stream.readable.getReader(), OVER_LIMIT_BYTES)
      return await Promise.all([reading, writing]).then(
        () => ({ ended: undefined }),
        async () => ({ ended: String(await over) }),
      )
    },
  })
}

window.listen = async (relay, _path, report) => {
  const node = await Peerloom.create({ identity: 'ephemeral' })
  node.addEventListener('peer:identify', ({ detail: { id, protocols } }) => {
    report({ event: 'identified', peer: id, protocols })
  })
  await node.handle(ECHO, ({ stream, peer }) => echo(stream, peer, report), { limited: true })
  await node.handle(RESET, async ({ stream }) => {
    await stream.readable.getReader().read()
    stream.abort()
  })
  const addresses = await node.listen(`${relay}/p2p-circuit`)
  return { peer: node.peerId, addresses }
}

async function echo(stream, peer, report) {
  let bytes = 0
  let end = 'closed'
  const writer = stream.writable.getWriter()
  try {
    for await (const chunk of stream.readable) {
      bytes += chunk.length
      await writer.write(chunk)
    }
    await writer.close()
  } catch {
    end = 'reset'
  }
  report({ event: 'echo', peer: peer.id, bytes, end })
}

/** Fails when the stream ends before. */
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
