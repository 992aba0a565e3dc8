// What the browser itself can do: RTCPeerConnection and RTCDataChannel, with nothing of a library around. The two pages find
// each other by a BroadcastChannel, which only pages of one browser have.
import { HANDLERS } from '../serve.js'

/** A message as large as those of libp2p over WebRTC. */
const MESSAGE = 16 * 1024
/** Bytes that a channel may hold unsent before `write` waits. */
const SEND_BUFFER = 4 * 1024 * 1024
/** Said as text, where all else is bytes. */
const END = 'end'

export class Raw {
  #signaling = new BroadcastChannel('raw')
  #connections = []

  static async start() {
    return new Raw()
  }

  /** Answers whoever dials. */
  async listen() {
    const connections = new Map()
    this.#signaling.onmessage = async ({ data: { from, to, offer, candidate } }) => {
      if (to !== undefined) return
      if (offer !== undefined) {
        const connection = this.#connect((message) => this.#signaling.postMessage({ to: from, ...message }))
        connections.set(from, connection)
        connection.ondatachannel = ({ channel }) => void HANDLERS[channel.label]?.(channelStream(channel))
        await connection.setRemoteDescription(offer)
        await connection.setLocalDescription()
        this.#signaling.postMessage({ to: from, answer: connection.localDescription.toJSON() })
      } else {
        await connections.get(from).addIceCandidate(candidate)
      }
    }
    return 'raw'
  }

  async dial() {
    const from = crypto.randomUUID()
    const connection = this.#connect((message) => this.#signaling.postMessage({ from, ...message }))
    const early = []
    this.#signaling.onmessage = async ({ data: { to, answer, candidate } }) => {
      if (to !== from) return
      if (answer !== undefined) {
        await connection.setRemoteDescription(answer)
        for (const one of early.splice(0)) await connection.addIceCandidate(one)
      } else if (connection.remoteDescription === null) {
        early.push(candidate)
      } else {
        await connection.addIceCandidate(candidate)
      }
    }
    const first = connection.createDataChannel('first')
    await connection.setLocalDescription()
    this.#signaling.postMessage({ from, offer: connection.localDescription.toJSON() })
    await event(first, 'open')
    return {
      async openStream(protocol) {
        const channel = connection.createDataChannel(protocol)
        const stream = channelStream(channel)
        await event(channel, 'open')
        return stream
      },
      close: async () => connection.close(),
    }
  }

  async stop() {
    this.#signaling.close()
    for (const connection of this.#connections) connection.close()
  }

  #connect(send) {
    const connection = new RTCPeerConnection()
    connection.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate) send({ candidate: candidate.toJSON() })
    }
    this.#connections.push(connection)
    return connection
  }
}

function channelStream(channel) {
  channel.binaryType = 'arraybuffer'
  channel.bufferedAmountLowThreshold = SEND_BUFFER / 4
  const inbox = []
  let wake
  const put = (bytes) => {
    inbox.push(bytes)
    wake?.()
  }
  channel.onmessage = ({ data }) => put(data === END ? undefined : new Uint8Array(data))
  channel.onclose = () => put(undefined)
  return {
    async write(bytes) {
      for (let at = 0; at < bytes.length; at += MESSAGE) {
        if (channel.bufferedAmount > SEND_BUFFER) await event(channel, 'bufferedamountlow')
        channel.send(bytes.subarray(at, at + MESSAGE))
      }
    },
    async closeWrite() {
      // The other page may have closed the channel already, having had what it wanted.
      if (channel.readyState === 'open') channel.send(END)
    },
    async read() {
      while (inbox.length === 0) {
        await new Promise((resolve) => {
          wake = resolve
        })
      }
      return inbox.shift()
    },
    close: async () => channel.close(),
  }
}

function event(target, name) {
  return new Promise((resolve, reject) => {
    target.addEventListener(name, resolve, { once: true })
    target.addEventListener('error', () => reject(new Error(`no ${name}`)), { once: true })
  })
}
