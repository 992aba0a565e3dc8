// js-libp2p as a peer of the matrix, on Node and in a page: what it answers, and what it checks of whom it dials.
// ../README.md has the contract that every peer program keeps.
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webRTC } from '@libp2p/webrtc'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import {
  CIRCUIT_LIMITS,
  ECHO,
  examine,
  OVER_LIMIT_BYTES,
  pattern,
  RESET,
  sameBytes,
  sizes,
  targetOf,
} from './contract.mjs'

const IDENTIFY = '/ipfs/id/1.0.0'

// Below the 64 KiB that some transports take as one message.
const SEND_BYTES = 32 * 1024

/**
 * `path` is what it does with relays: connections stay `relayed`, or become direct by `webrtc`. `protection` is of its TCP
 * connections.
 */
export async function createPeer({ transports, path, protection, listen = [], services = {} }) {
  return await createLibp2p({
    addresses: { listen },
    transports: [...transports, circuitRelayTransport(), ...(path === 'webrtc' ? [webRTC()] : [])],
    connectionEncrypters: [noise()],
    ...protection,
    streamMuxers: [yamux()],
    services: { identify: identify(), ping: ping(), ...services },
    // Five a second from one address, otherwise; and a dialer that finds out about TLS needs two.
    connectionManager: { inboundConnectionThreshold: Number.POSITIVE_INFINITY },
    // In a page, js-libp2p refuses loopback addresses unless told otherwise.
    connectionGater: { denyDialMultiaddr: () => false },
  })
}

/** A relay with the limits that the contract names. */
export function relayServer() {
  const { bytes, seconds } = CIRCUIT_LIMITS
  // It takes the duration for milliseconds, and tells it to others as if it were seconds, which the spec says it is.
  const reservations = { defaultDataLimit: BigInt(bytes), defaultDurationLimit: seconds * 1000 }
  return { relay: circuitRelayServer({ reservations }) }
}

/** Where to listen to be reached through the relay at `address`. */
export function throughRelay(address, path) {
  return [`${address}/p2p-circuit`, ...(path === 'webrtc' ? ['/webrtc'] : [])]
}

/** What the address of a listener wants a dialer to do with relays. */
export function pathOf(address) {
  return address.includes('/webrtc/') ? 'webrtc' : 'relayed'
}

/** What it says of itself as a listener. */
export function listening(node) {
  return { event: 'listening', peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) }
}

/** Answers /echo and the protocol that resets; reports what it sees. */
export async function serve(node, report) {
  node.addEventListener('peer:identify', ({ detail }) => {
    report({ event: 'identified', peer: detail.peerId.toString(), protocols: detail.protocols })
  })
  const echo = async (stream, connection) => {
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
  }
  await node.handle(ECHO, echo, { runOnLimitedConnection: true })
  await node.handle(RESET, async (stream) => {
    await stream[Symbol.asyncIterator]().next()
    stream.abort(new Error('reset, as the protocol promises'))
  })
}

/** Dials `address` and returns what each check found, `without` some. */
export async function check(node, address, without) {
  const target = targetOf(address)
  // Not by middleware, of which version 3.3.11 runs the handler for outbound streams too once one is set.
  await node.unhandle(IDENTIFY)
  const asked = new Promise((resolve) => {
    const answer = async (stream, connection) => {
      await node.services.identify.handleProtocol(stream, connection)
      if (connection.remotePeer.toString() === target) resolve()
    }
    node.handle(IDENTIFY, answer, { runOnLimitedConnection: true })
  })
  // js-libp2p identifies whomever it connects to.
  const identified = new Promise((resolve) => {
    node.addEventListener('peer:identify', ({ detail }) => {
      if (detail.peerId.toString() === target) resolve(detail)
    })
  })
  let connection
  const newStream = (protocol, signal) =>
    connection.newStream(protocol, { signal, runOnLimitedConnection: protocol === ECHO })
  return await examine(node.peerId.toString(), without, {
    async connect(signal) {
      connection = await node.dial(multiaddr(address), { signal })
      const { remotePeer, limits } = connection
      const limited = limits && { bytes: Number(limits.bytes), seconds: limits.seconds }
      return { remote: remotePeer.toString(), direct: connection.direct, limits: limited }
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
      const stream = await newStream(ECHO, signal)
      const sent = pattern(sizes(connection.limits).echo)
      const reader = stream[Symbol.asyncIterator]()
      const [received] = await Promise.all([readAtLeast(reader, sent.length), send(stream, sent, signal)])
      await stream.close({ signal })
      return { equal: sameBytes(sent, received), end: await ending(stream, reader) }
    },
    async 'half-close'(signal) {
      const stream = await newStream(ECHO, signal)
      const sent = pattern(sizes(connection.limits).halfClose)
      await send(stream, sent, signal)
      await stream.close({ signal })
      const reader = stream[Symbol.asyncIterator]()
      const received = await readAtLeast(reader, sent.length)
      return { equal: sameBytes(sent, received), end: await ending(stream, reader) }
    },
    async reset(signal) {
      const stream = await newStream(ECHO, signal)
      await send(stream, pattern(1), signal)
      await readAtLeast(stream[Symbol.asyncIterator](), 1)
      stream.abort(new Error('reset, as the check wants'))
      return {}
    },
    async 'remote reset'(signal) {
      let stream
      try {
        stream = await newStream(RESET, signal)
      } catch (error) {
        const end = { UnsupportedProtocolError: 'unsupported', LimitedConnectionError: 'limited' }[error.name]
        if (end === undefined) throw error
        return { end }
      }
      await send(stream, pattern(1), signal)
      return { end: await ending(stream, stream[Symbol.asyncIterator]()) }
    },
    async 'still alive'(signal) {
      return { ms: await node.services.ping.ping(connection.remotePeer, { signal }) }
    },
    async 'over limit'(signal) {
      const stream = await newStream(ECHO, signal)
      const reader = stream[Symbol.asyncIterator]()
      const reading = readAtLeast(reader, OVER_LIMIT_BYTES)
      const outcome = Promise.all([reading, send(stream, pattern(OVER_LIMIT_BYTES), signal)])
      return await outcome.then(
        () => ({ ended: undefined }),
        (error) => ({ ended: `${error.name}: ${error.message}` }),
      )
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
