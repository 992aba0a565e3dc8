// js-libp2p as a peer of the matrix, on Node and in a page: what it answers, and what it checks of whom it dials.
// ../README.md has the contract that every peer program keeps.
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { ECHO, ECHO_BYTES, examine, HALF_CLOSE_BYTES, pattern, RESET, sameBytes } from './contract.mjs'

const IDENTIFY = '/ipfs/id/1.0.0'

// Below the 64 KiB that some transports take as one message.
const SEND_BYTES = 32 * 1024

export async function createPeer({ transports, listen = [] }) {
  return await createLibp2p({
    addresses: { listen },
    transports,
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify(), ping: ping() },
    // In a page, js-libp2p refuses loopback addresses unless told otherwise.
    connectionGater: { denyDialMultiaddr: () => false },
  })
}

/** Answers /echo and the protocol that resets; reports what it sees. */
export async function serve(node, report) {
  node.addEventListener('peer:identify', ({ detail }) => {
    report({ event: 'identified', peer: detail.peerId.toString(), protocols: detail.protocols })
  })
  await node.handle(ECHO, async (stream, connection) => {
    let bytes = 0
    try {
      for await (const chunk of stream) {
        bytes += chunk.byteLength
        if (!stream.send(chunk)) await stream.onDrain()
      }
      // The iterator ends quietly if the reset came before it began.
      if (stream.status === 'reset') throw new Error('reset')
      await stream.close()
    } catch {}
    const end = stream.status === 'reset' ? 'reset' : 'closed'
    report({ event: 'echo', peer: connection.remotePeer.toString(), bytes, end })
  })
  await node.handle(RESET, async (stream) => {
    await stream[Symbol.asyncIterator]().next()
    stream.abort(new Error('reset, as the protocol promises'))
  })
}

/** Dials `address` and returns what each check found, `without` some. */
export async function check(node, address, without) {
  // Not by middleware, of which version 3.3.11 runs the handler for outbound streams too once one is set.
  await node.unhandle(IDENTIFY)
  const asked = new Promise((resolve) => {
    node.handle(IDENTIFY, async (stream, connection) => {
      await node.services.identify.handleProtocol(stream, connection)
      resolve()
    })
  })
  // js-libp2p identifies whomever it connects to.
  const identified = new Promise((resolve) => {
    node.addEventListener('peer:identify', ({ detail }) => resolve(detail))
  })
  let connection
  return await examine(node.peerId.toString(), without, {
    async connect(signal) {
      connection = await node.dial(multiaddr(address), { signal })
      return { remote: connection.remotePeer.toString() }
    },
    async identify() {
      const [told] = await Promise.all([identified, asked])
      return {
        protocols: told.protocols,
        addresses: told.listenAddrs.map(String),
        observed: told.observedAddr?.toString(),
        asked: true,
      }
    },
    async ping(signal) {
      return { ms: await node.services.ping.ping(connection.remotePeer, { signal }) }
    },
    async echo(signal) {
      const stream = await connection.newStream(ECHO, { signal })
      const sent = pattern(ECHO_BYTES)
      const reader = stream[Symbol.asyncIterator]()
      const [received] = await Promise.all([readAtLeast(reader, sent.length), send(stream, sent, signal)])
      await stream.close({ signal })
      return { equal: sameBytes(sent, received), end: await ending(stream, reader) }
    },
    async 'half-close'(signal) {
      const stream = await connection.newStream(ECHO, { signal })
      const sent = pattern(HALF_CLOSE_BYTES)
      await send(stream, sent, signal)
      await stream.close({ signal })
      const reader = stream[Symbol.asyncIterator]()
      const received = await readAtLeast(reader, sent.length)
      return { equal: sameBytes(sent, received), end: await ending(stream, reader) }
    },
    async reset(signal) {
      const stream = await connection.newStream(ECHO, { signal })
      await send(stream, pattern(1), signal)
      await readAtLeast(stream[Symbol.asyncIterator](), 1)
      stream.abort(new Error('reset, as the check wants'))
      return {}
    },
    async 'remote reset'(signal) {
      let stream
      try {
        stream = await connection.newStream(RESET, { signal })
      } catch (error) {
        if (error.name === 'UnsupportedProtocolError') return { end: 'unsupported' }
        throw error
      }
      await send(stream, pattern(1), signal)
      return { end: await ending(stream, stream[Symbol.asyncIterator]()) }
    },
    async 'still alive'(signal) {
      return { ms: await node.services.ping.ping(connection.remotePeer, { signal }) }
    },
  })
}

async function send(stream, bytes, signal) {
  for (let at = 0; at < bytes.length; at += SEND_BYTES) {
    if (!stream.send(bytes.subarray(at, at + SEND_BYTES))) await stream.onDrain({ signal })
  }
}

async function readAtLeast(reader, length) {
  const received = new Uint8Array(length)
  let at = 0
  while (at < length) {
    const { value, done } = await reader.next()
    if (done) throw new Error(`the stream ended after ${at} of ${length} bytes`)
    if (at + value.byteLength > length) throw new Error(`more than ${length} bytes came back`)
    received.set(value.subarray(), at)
    at += value.byteLength
  }
  return received
}

/** `closed`, `reset`, or how many bytes came instead. */
async function ending(stream, reader) {
  try {
    const { value, done } = await reader.next()
    if (!done) return `${value.byteLength} more bytes`
    return stream.status === 'reset' ? 'reset' : 'closed'
  } catch (error) {
    if (stream.status === 'reset') return 'reset'
    throw error
  }
}
