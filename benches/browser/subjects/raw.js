// What the browser itself can do: its own objects, and nothing of a library on the path of a byte.
//
// WebTransport and WebRTC: streams opened by hand on a session that ours has just dialed, so that the server is the same
// and has authenticated us; the protocol is named by hand, the framing of WebRTC is made once for all chunks. WebSocket: a
// bare socket to a bare server, without encryption and muxer.
import { webStream } from '../web_stream.js'

/** Bytes that a socket or a channel may hold unsent before `write` waits. */
const SEND_BUFFER = 4 * 1024 * 1024
const POLL_MS = 4

export class Raw {
  name = 'limit'
  #ours
  #webSocketUrl
  #session
  #peerConnection

  constructor(ours, webSocketUrl) {
    this.#ours = ours
    this.#webSocketUrl = webSocketUrl
    this.#observe('WebTransport', (session) => {
      this.#session = session
    })
    this.#observe('RTCPeerConnection', (connection) => {
      this.#peerConnection = connection
    })
  }

  /** Tells of every object of a browser's class that is made from now on. */
  #observe(name, tell) {
    const Browsers = globalThis[name]
    globalThis[name] = class extends Browsers {
      constructor(...options) {
        super(...options)
        tell(this)
      }
    }
  }

  async dial(transport, address) {
    if (transport === 'websocket') return await this.#dialWebSocket()
    const connection = await this.#ours.dial(transport, address)
    const close = () => connection.close()
    if (transport === 'webtransport') {
      const session = this.#session
      const dialed = await timeToSession(address)
      const openStream = async (protocol) =>
        named(protocol, webStream(await session.createBidirectionalStream()))
      return { dialed, openStream, close }
    }
    const peerConnection = this.#peerConnection
    return { openStream: async (protocol) => named(protocol, await openChannel(peerConnection)), close }
  }

  async #dialWebSocket() {
    const start = performance.now()
    const first = new WebSocket(this.#webSocketUrl)
    await event(first, 'open')
    const dialed = performance.now() - start
    first.close()
    return { dialed, openStream: () => openWebSocket(this.#webSocketUrl), close: async () => {} }
  }
}

/** How long the browser takes for a session, without a word of libp2p on it. */
async function timeToSession(address) {
  const [, ip, port] = /\/ip4\/([^/]+)\/udp\/(\d+)\//.exec(address)
  const hashes = [...address.matchAll(/\/certhash\/u([^/]+)/g)].map(([, text]) => {
    const bytes = Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0))
    // After the code and the length of the multihash.
    return { algorithm: 'sha-256', value: bytes.slice(2) }
  })
  const url = `https://${ip}:${port}/.well-known/libp2p-webtransport?type=noise`
  const start = performance.now()
  const session = new WebTransport(url, { serverCertificateHashes: hashes })
  await session.ready
  const took = performance.now() - start
  session.close()
  return took
}

/** multistream-select, said without waiting; the answer is as long as what was said, and skipped. */
async function named(protocol, stream) {
  const lines = ['/multistream/1.0.0\n', `${protocol}\n`]
  const said = Uint8Array.from(lines.flatMap((line) => [line.length, ...new TextEncoder().encode(line)]))
  await stream.write(said)
  let skip = said.length
  return {
    ...stream,
    async read() {
      for (;;) {
        const bytes = await stream.read()
        if (bytes === undefined || skip === 0) return bytes
        const skipped = Math.min(skip, bytes.byteLength)
        skip -= skipped
        if (skipped < bytes.byteLength) return bytes.subarray(skipped)
      }
    },
  }
}

async function openWebSocket(url) {
  const socket = new WebSocket(url)
  socket.binaryType = 'arraybuffer'
  const inbox = new Inbox()
  socket.onmessage = ({ data }) => inbox.put(new Uint8Array(data))
  socket.onclose = () => inbox.end()
  await event(socket, 'open')
  return {
    async write(bytes) {
      while (socket.bufferedAmount > SEND_BUFFER) await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      socket.send(bytes)
    },
    closeWrite: async () => socket.send('end'),
    read: () => inbox.take(),
    close: async () => socket.close(),
  }
}

const FIN = Uint8Array.of(2, 8, 0)
const FIN_ACK = Uint8Array.of(2, 8, 3)
/** A message has at most 16 KiB (libp2p spec, webrtc/README.md); the rest is for its framing. */
const MESSAGE_PAYLOAD = 16 * 1024 - 8

async function openChannel(peerConnection) {
  const channel = peerConnection.createDataChannel('')
  channel.binaryType = 'arraybuffer'
  channel.bufferedAmountLowThreshold = SEND_BUFFER / 4
  const inbox = new Inbox()
  // The length of a long message comes as a message of its own.
  let lengthCame = false
  channel.onmessage = ({ data }) => {
    const bytes = new Uint8Array(data)
    if (!lengthCame && bytes.length <= 3 && bytes.at(-1) < 0x80 && bytes.length === lengthOfVarint(bytes)) {
      lengthCame = true
      return
    }
    const { flag, payload } = unframed(bytes, lengthCame)
    lengthCame = false
    if (payload.length > 0) inbox.put(payload)
    if (flag === 0) {
      // The server may have closed it already, having our own FIN.
      if (channel.readyState === 'open') channel.send(FIN_ACK)
      inbox.end()
    }
  }
  channel.onclose = () => inbox.end()
  await event(channel, 'open')
  const framed = new WeakMap()
  return {
    async write(bytes) {
      if (!framed.has(bytes)) framed.set(bytes, frames(bytes))
      for (const frame of framed.get(bytes)) {
        if (channel.bufferedAmount > SEND_BUFFER) await event(channel, 'bufferedamountlow')
        channel.send(frame)
      }
    },
    closeWrite: async () => channel.send(FIN),
    read: () => inbox.take(),
    close: async () => channel.close(),
  }
}

/** Each with its length before it, and a protobuf with the one field `message`. */
function frames(bytes) {
  const all = []
  for (let at = 0; at < bytes.length; at += MESSAGE_PAYLOAD) {
    const payload = bytes.subarray(at, at + MESSAGE_PAYLOAD)
    const inner = [0x12, ...varint(payload.length)]
    all.push(Uint8Array.from([...varint(inner.length + payload.length), ...inner, ...payload]))
  }
  return all
}

/** How many bytes the number at the beginning takes. */
const lengthOfVarint = (bytes) => bytes.findIndex((byte) => byte < 0x80) + 1

function unframed(bytes, lengthCame) {
  let at = 0
  const number = () => {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
  }
  if (!lengthCame) number()
  let flag
  let payload = new Uint8Array(0)
  while (at < bytes.length) {
    if (bytes[at++] === 0x08) {
      flag = number()
    } else {
      const length = number()
      payload = bytes.subarray(at, at + length)
      at += length
    }
  }
  return { flag, payload }
}

function varint(value) {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >> 7)]
}

/** Chunks that have come and that nobody has read yet. */
class Inbox {
  #chunks = []
  #ended = false
  #wake

  put(chunk) {
    this.#chunks.push(chunk)
    this.#wake?.()
  }

  end() {
    this.#ended = true
    this.#wake?.()
  }

  async take() {
    while (this.#chunks.length === 0) {
      if (this.#ended) return undefined
      await new Promise((resolve) => {
        this.#wake = resolve
      })
    }
    return this.#chunks.shift()
  }
}

function event(target, name) {
  return new Promise((resolve, reject) => {
    target.addEventListener(name, resolve, { once: true })
    target.addEventListener('error', () => reject(new Error(`no ${name}`)), { once: true })
  })
}
