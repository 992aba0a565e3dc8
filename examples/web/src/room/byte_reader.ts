/** Reads a stream in pieces of the length that a protocol says, whatever chunks they come in. */
import { orAborted } from '../waiting.ts'

type Bytes = Uint8Array<ArrayBuffer>

export class ByteReader {
  readonly #reader: ReadableStreamDefaultReader<Bytes>
  readonly #signal: AbortSignal
  #rest: Bytes = new Uint8Array(0)
  #filling: Promise<void> | undefined

  constructor(readable: ReadableStream<Bytes>, signal: AbortSignal) {
    this.#reader = readable.getReader()
    this.#signal = signal
  }

  /** Exactly `length` bytes. */
  async exactly(length: number): Promise<Bytes> {
    const bytes = new Uint8Array(length)
    for (let filled = 0; filled < length; ) {
      const some = await this.some(length - filled)
      bytes.set(some, filled)
      filled += some.length
    }
    return bytes
  }

  /** At least one byte, and at most `length`. */
  async some(length: number): Promise<Bytes> {
    await this.more()
    const some = this.#rest.subarray(0, length)
    this.#rest = this.#rest.subarray(some.length)
    return some
  }

  /** Waits until there is something to read. */
  more(): Promise<void> {
    this.#filling ??= this.#fill().finally(() => {
      this.#filling = undefined
    })
    return this.#filling
  }

  /** Everything up to the end, of which there may be `limit` bytes. */
  async toEnd(limit: number): Promise<Bytes> {
    const parts = [this.#rest]
    let length = this.#rest.length
    for (;;) {
      const { done, value } = await orAborted(this.#reader.read(), this.#signal)
      if (done) return new Uint8Array(await new Blob(parts).arrayBuffer())
      length += value.length
      if (length > limit) throw new Error(`the other page sent more than ${limit} bytes`)
      parts.push(value)
    }
  }

  async #fill(): Promise<void> {
    while (this.#rest.length === 0) {
      const { done, value } = await orAborted(this.#reader.read(), this.#signal)
      if (done) throw new Error('the other page ended the stream too early')
      this.#rest = value
    }
  }
}
