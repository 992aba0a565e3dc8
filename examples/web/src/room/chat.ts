/**
 * The chat: one stream per message, which is UTF-8 up to the end of the stream. The receiver closes its side when it has shown
 * the message, so that the sender knows.
 */
import type { Peerloom, PeerloomStream } from 'peerloom'
import { orAborted } from '../waiting.ts'
import { ByteReader } from './byte_reader.ts'

const PROTOCOL = '/peerloom-room/chat/1.0.0'

/** Of one message, in bytes. What is typed is limited to less than that. */
const LONGEST = 16 * 1024

/** For one message on its way, in either direction. */
const PATIENCE_MS = 20_000

export class Chat {
  readonly #node: Peerloom
  /** By peer, the message before: messages arrive in the order in which they were sent. */
  readonly #last = new Map<string, Promise<unknown>>()

  constructor(node: Peerloom) {
    this.#node = node
  }

  /** Calls `show` with every message that comes. Messages are short: they may come through the relay. */
  receive(show: (from: string, text: string) => void): Promise<void> {
    return this.#node.handle(
      PROTOCOL,
      async ({ stream, peer }) => {
        try {
          const message = await new ByteReader(stream.readable, patience()).toEnd(LONGEST)
          // Bytes that are no UTF-8 are shown as what they are: unreadable.
          show(peer.id, new TextDecoder().decode(message))
          await stream.writable.close()
        } catch (error) {
          // The sender gets to know; it is no failure of this page.
          console.warn('a message did not arrive:', error)
          stream.abort(error)
        }
      },
      { limited: true },
    )
  }

  /** Resolves when the other page has shown the message. */
  send(to: string, text: string): Promise<void> {
    const sending = (this.#last.get(to) ?? Promise.resolve()).then(() => this.#send(to, text))
    // The next message does not care whether this one arrived.
    const settled = sending.catch(() => {})
    this.#last.set(to, settled)
    void settled.then(() => this.#last.get(to) === settled && this.#last.delete(to))
    return sending
  }

  async #send(to: string, text: string): Promise<void> {
    const signal = patience()
    const stream = await this.#node.openStream(to, PROTOCOL, { limited: true, signal })
    try {
      await orAborted(write(stream, text), signal)
      await new ByteReader(stream.readable, signal).toEnd(0)
    } catch (error) {
      stream.abort(error)
      throw error
    }
  }
}

async function write(stream: PeerloomStream, text: string): Promise<void> {
  const writer = stream.writable.getWriter()
  await writer.write(new TextEncoder().encode(text))
  await writer.close()
}

const patience = () => AbortSignal.timeout(PATIENCE_MS)
