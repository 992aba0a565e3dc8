import type { WasmStream } from '../generated/peerloom_wasm.js'
import { call, callNow } from './core.js'
import { asyncDispose } from './dispose.js'
import { PeerloomError, toPeerloomError } from './error.js'
import type { Peer } from './peer.js'

/** Bytes that may wait in `writable` before its writers are asked to wait. */
const WRITE_QUEUE = 256 * 1024

/** The most that is handed to the core at once, which copies it. */
const MAX_WRITE = 64 * 1024

/** How long a cancelled stream is read at most before the browser is told to cancel it, and what pause ends it sooner. */
const DISCARD_MS = 200
const DISCARD_PAUSE_MS = 20

/** The browser's own streams, unlocked from the core. */
interface Native {
  reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>
  writer: WritableStreamDefaultWriter<Uint8Array>
}

/**
 * A stream to a peer: bytes in order, both ways, with backpressure.
 *
 * Closing `writable` tells the peer that no more comes; aborting it resets the stream. Cancelling `readable` tells the peer to
 * stop. Over WebTransport the bytes go straight through the browser's own streams.
 */
export class PeerloomStream {
  /** The protocol that the stream was opened for. */
  readonly protocol: string
  readonly peer: Peer
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>
  readonly writable: WritableStream<BufferSource>
  /** Fulfilled when both directions have ended, in whichever way. */
  readonly closed: Promise<void>

  readonly #core: WasmStream
  /** There once the browser's own streams have been taken out of the core. */
  #native: Native | undefined
  #handOver: Promise<void> | undefined
  /** Bytes that the core had read before that. */
  #unread: Uint8Array<ArrayBuffer> | undefined
  /** What the core is doing for `writable`. */
  #writing: Promise<unknown> | undefined
  #readController: ReadableStreamController<Uint8Array<ArrayBuffer>> | undefined
  #writeController: WritableStreamDefaultController | undefined
  #openHalves = new Set<'read' | 'write'>(['read', 'write'])
  #settleClosed!: () => void

  /** @internal */
  constructor(core: WasmStream, peer: Peer) {
    this.#core = core
    this.protocol = core.protocol
    this.peer = peer
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve
    })
    this.readable = this.#createReadable()
    this.writable = new WritableStream<BufferSource>(
      {
        start: (controller) => {
          this.#writeController = controller
        },
        write: (chunk) => this.#guard('write', () => this.#write(asBytes(chunk))),
        close: () => this.#guard('write', () => this.#closeWrite()),
        abort: (reason: unknown) => this.#abort(reason),
      },
      // What is no buffer has no length; `write` refuses it.
      { highWaterMark: WRITE_QUEUE, size: (chunk) => chunk.byteLength ?? 0 },
    )
  }

  /** Resets the stream: both directions end at once. `code` reaches the peer where the transport can carry it. */
  abort(
    reason: unknown = new PeerloomError('ERR_STREAM_RESET', 'the stream was reset here'),
    code = 0,
  ): void {
    const error = codeOf(reason) === code ? reason : withCode(reason, code)
    this.#writeController?.error(error)
    this.#abort(error)
  }

  /** Closes both directions: `writable` after what was written, `readable` without reading the rest. */
  async close(): Promise<void> {
    // A direction that is in use is its user's to close.
    await Promise.all([
      this.writable.locked ? undefined : this.writable.close().catch(() => {}),
      this.readable.locked ? undefined : this.readable.cancel().catch(() => {}),
    ])
  }

  [asyncDispose](): Promise<void> {
    return this.close()
  }

  #createReadable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    const source = {
      start: (controller: ReadableStreamController<Uint8Array<ArrayBuffer>>) => {
        this.#readController = controller
      },
      pull: () => this.#guard('read', () => this.#pull()),
      cancel: (reason: unknown) => this.#cancel(reason),
    }
    try {
      return new ReadableStream({ ...source, type: 'bytes' }, { highWaterMark: 0 })
    } catch {
      // A browser without byte streams.
      return new ReadableStream(source, { highWaterMark: 0 })
    }
  }

  /** Runs one step of one direction; that direction is over if it fails. */
  async #guard<T>(half: 'read' | 'write', step: () => Promise<T>): Promise<T> {
    try {
      return await step()
    } catch (error) {
      this.#ended(half)
      throw error instanceof TypeError ? error : toPeerloomError(error)
    }
  }

  async #pull(): Promise<void> {
    const controller = this.#readController
    if (this.#core.isNative && !this.#native) {
      await this.#takeNative()
    }
    const chunk = await this.#read()
    if (chunk) {
      controller?.enqueue(chunk)
      return
    }
    this.#ended('read')
    controller?.close()
    if (controller && 'byobRequest' in controller) {
      // A reader that brought its own buffer gets it back.
      controller.byobRequest?.respond(0)
    }
  }

  async #read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (!this.#native) {
      return (await call(() => this.#core.read())) as Uint8Array<ArrayBuffer> | undefined
    }
    if (this.#unread) {
      const unread = this.#unread
      this.#unread = undefined
      return unread
    }
    return (await this.#native.reader.read()).value
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (this.#native) {
      await this.#native.writer.write(bytes)
      return
    }
    for (let at = 0; at < bytes.length; at += MAX_WRITE) {
      if (this.#native) {
        await this.#write(bytes.subarray(at))
        return
      }
      await this.#busy(call(() => this.#core.write(bytes.subarray(at, at + MAX_WRITE))))
    }
    if (this.#core.isNative) {
      // In the background: the first bytes travel together with the name of the protocol.
      this.#takeNative().catch(() => {})
    }
  }

  async #closeWrite(): Promise<void> {
    await (this.#native?.writer.close() ?? this.#busy(call(() => this.#core.closeWrite())))
    this.#ended('write')
  }

  async #busy<T>(work: Promise<T>): Promise<T> {
    this.#writing = work
    try {
      return await work
    } finally {
      this.#writing = undefined
    }
  }

  /** Takes the browser's own streams out of the core, as soon as the peer has accepted the protocol. */
  #takeNative(): Promise<void> {
    this.#handOver ??= this.#waitAndTake()
    return this.#handOver
  }

  async #waitAndTake(): Promise<void> {
    await call(() => this.#core.confirm())
    while (this.#writing) {
      await this.#writing.catch(() => {})
    }
    const pair = callNow(() => this.#core.take())
    if (!pair) {
      throw new PeerloomError('ERR_STREAM_RESET', 'the stream was reset here')
    }
    this.#native = { reader: pair.readable.getReader(), writer: pair.writable.getWriter() }
    this.#unread = pair.unread
    // Whoever waits for them gets the error with the next read or write.
    this.#native.reader.closed.catch(() => {})
    this.#native.writer.closed.catch(() => {})
  }

  #cancel(reason: unknown): void {
    this.#ended('read')
    if (this.#native) {
      void cancelNative(this.#native.reader, reason)
    } else if (this.#openHalves.has('write')) {
      // There is nothing to tell the peer with that would not end our own direction too.
      void this.#drain()
    }
  }

  async #drain(): Promise<void> {
    try {
      while (await this.#read()) {}
    } catch {
      // Nobody wants to know.
    }
  }

  #abort(reason: unknown): void {
    if (this.#native) {
      this.#native.writer.abort(nativeReason(reason)).catch(() => {})
      void cancelNative(this.#native.reader, reason)
    } else {
      callNow(() => this.#core.reset(codeOf(reason)))
    }
    if (this.#openHalves.has('read')) {
      this.#readController?.error(reason)
    }
    this.#ended('read')
    this.#ended('write')
  }

  #ended(half: 'read' | 'write'): void {
    if (this.#openHalves.delete(half) && this.#openHalves.size === 0) {
      // After a close this only frees what is left; nothing is lost by it.
      call(() => this.#core.discard()).catch(() => {})
      this.#settleClosed()
    }
  }
}

function asBytes(chunk: BufferSource): Uint8Array {
  if (chunk instanceof Uint8Array) {
    return chunk
  }
  if (ArrayBuffer.isView(chunk)) {
    return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)
  }
  if (chunk instanceof ArrayBuffer) {
    return new Uint8Array(chunk)
  }
  throw new TypeError('a stream takes Uint8Array and other buffers; encode text with TextEncoderStream')
}

/** The error code to reset with: the one that a reason has. */
function codeOf(reason: unknown): number {
  const code = (reason as Partial<PeerloomError> | undefined)?.streamErrorCode
  return typeof code === 'number' ? code : 0
}

function withCode(reason: unknown, code: number): PeerloomError {
  const message = reason instanceof Error ? reason.message : 'the stream was reset here'
  return new PeerloomError('ERR_STREAM_RESET', message, { cause: reason, streamErrorCode: code })
}

/** Tells the peer to stop, and forgets what it has sent. */
async function cancelNative(reader: Native['reader'], reason: unknown): Promise<void> {
  try {
    if (LOSES_CREDIT) {
      await discardArrived(reader)
    }
    await reader.cancel(nativeReason(reason))
  } catch {
    // It has ended by itself.
  }
}

/**
 * Firefox never gives back the connection's flow control credit for bytes that it received and then threw away: a few cancelled
 * downloads, and no stream of the connection receives anything any more. So what has arrived is read first.
 */
const LOSES_CREDIT = 'InternalError' in globalThis

/** Reads until nothing more comes for a moment; not for long, because the peer goes on sending. */
async function discardArrived(reader: Native['reader']): Promise<void> {
  const end = performance.now() + DISCARD_MS
  while (performance.now() < end) {
    const arrived = await Promise.race([reader.read(), pause(DISCARD_PAUSE_MS)])
    if (!arrived || arrived.done) {
      return
    }
  }
}

function pause(milliseconds: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}

/** What the browser's own streams want to be aborted with for a code to reach the peer. */
function nativeReason(reason: unknown): unknown {
  const code = codeOf(reason)
  if (code === 0) {
    return undefined
  }
  const options = { source: 'stream', streamErrorCode: code } as const
  try {
    return new WebTransportError('reset', options)
  } catch {
    // The draft has a message before the options; the browsers of 2026 have only the options, and throw otherwise.
    const Constructor = WebTransportError as unknown as new (init: typeof options) => WebTransportError
    return new Constructor(options)
  }
}
