// The commands of Redis that the tests need, in its protocol RESP 2.
import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'

/** Between two attempts to connect: Redis may start at the same time as we. */
const RETRY_MS = 100

export class Redis {
  #socket
  #lines

  /** Connects to `host:port`, and tries that for so many `milliseconds`. */
  static async connect(address, milliseconds) {
    const deadline = Date.now() + milliseconds
    const at = address.lastIndexOf(':')
    for (;;) {
      const socket = connect({
        host: address.slice(0, at),
        port: Number(address.slice(at + 1)),
        noDelay: true,
      })
      try {
        await once(socket, 'connect')
        return new Redis(socket)
      } catch (error) {
        if (Date.now() > deadline) throw new Error(`no Redis at ${address}`, { cause: error })
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
      }
    }
  }

  constructor(socket) {
    this.#socket = socket
    // Addresses and numbers hold no line breaks, so that the protocol is one of lines.
    this.#lines = createInterface({ input: socket, crlfDelay: Infinity })[Symbol.asyncIterator]()
  }

  /** Appends to the list at `key`. */
  async push(key, value) {
    await this.#command('RPUSH', key, value)
  }

  /** Takes the first element of the list at `key`, as soon as there is one. */
  async pop(key, milliseconds) {
    const [, value] = await this.#command('BLPOP', key, String(Math.ceil(milliseconds / 1000)))
    if (value === undefined) throw new Error(`nobody pushed to ${JSON.stringify(key)} in time`)
    return value
  }

  close() {
    this.#socket.destroy()
  }

  /** The strings of the reply, of which most commands have one. */
  async #command(...words) {
    const bulk = (word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`
    this.#socket.write(`*${words.length}\r\n${words.map(bulk).join('')}`)
    const reply = await this.#line()
    const rest = reply.slice(1)
    switch (reply[0]) {
      case '+':
      case ':':
        return [rest]
      case '*': {
        const strings = []
        // A length, then the string; no array at all has the length -1.
        for (let left = Number(rest); left > 0; left -= 1) {
          await this.#line()
          strings.push(await this.#line())
        }
        return strings
      }
      default:
        throw new Error(`Redis: ${reply}`)
    }
  }

  async #line() {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error('Redis closed the connection')
    return value
  }
}
