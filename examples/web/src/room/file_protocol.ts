/**
 * How a file goes from one page to another, on one stream:
 *
 * - sender: four bytes, the length of what follows; `{ name, size, type }` as JSON
 * - receiver: one byte, whether it wants the file
 * - sender: the file, and its SHA-256
 * - receiver: while the file arrives, eight bytes again and again: how much of it is stored; after all of it is, its SHA-256
 *
 * Numbers are big-endian. The sender is never more than a window ahead of what is stored: a page cannot hold the network back,
 * so that without a window whatever a slow disk does not take would be in memory.
 */
import type { Peerloom, PeerloomStream } from 'peerloom'
import { toHex } from '../format.ts'
import { Sha256 } from '../sha256.ts'
import { eachChunk, orAborted } from '../waiting.ts'
import { ByteReader } from './byte_reader.ts'
import type { FileSink } from './file_sink.ts'

export const FILE_PROTOCOL = '/peerloom-room/file/1.0.0'

/** What is told of a file before it comes. */
export interface FileOffer {
  name: string
  size: number
  type: string
}

/** The SHA-256 of one file at both ends, in hexadecimal. */
export interface Digests {
  sent: string
  received: string
}

/** The receiver said no. */
export class FileDeclined extends Error {
  override readonly name = 'FileDeclined'
  readonly code = 'FILE_DECLINED'
}

const WINDOW = 8 * 1024 * 1024
/** Small pieces keep the stream, and the progress, moving evenly. */
const PIECE = 64 * 1024
/** Of the description; a name has at most 255 bytes on most disks. */
const LONGEST_OFFER = 4 * 1024
const DIGEST_LENGTH = 32
const UNWANTED = 0
const WANTED = 1

/** Sends `file`, on a direct connection only. `onProgress` is told the bytes that are stored there, 0 with the answer. */
export async function sendFile(
  node: Peerloom,
  to: string,
  file: File,
  signal: AbortSignal,
  onProgress: (stored: number) => void,
): Promise<Digests> {
  const stream = await node.openStream(to, FILE_PROTOCOL, { signal })
  return ending(stream, signal, async (signal) => {
    const reader = new ByteReader(stream.readable, signal)
    const writer = stream.writable.getWriter()
    await orAborted(writer.write(encodeOffer(file)), signal)
    const [answer] = await reader.exactly(1)
    if (answer !== WANTED) throw new FileDeclined('the other page does not want the file')
    onProgress(0)

    using hash = new Sha256()
    const window = new Window()
    const send = async () => {
      await eachChunk(file.stream(), signal, async (chunk) => {
        const hashed = hash.update(chunk)
        for (let at = 0; at < chunk.length; at += PIECE) {
          const piece = chunk.subarray(at, at + PIECE)
          await orAborted(window.take(piece.length), signal)
          // Waits while the stream has enough to do; failures come with the next wait.
          await orAborted(writer.ready, signal)
          writer.write(piece).catch(() => {})
        }
        await hashed
      })
      const digest = await hash.digest()
      await orAborted(writer.write(digest), signal)
      await orAborted(writer.close(), signal)
      return digest
    }
    const listen = async () => {
      for (let stored = 0; stored < file.size; ) {
        const now = decodeCount(await reader.exactly(8))
        if (now <= stored || now > file.size) throw new Error('the other page counts wrong')
        window.give(now - stored)
        stored = now
        onProgress(stored)
      }
      return reader.exactly(DIGEST_LENGTH)
    }
    const [sent, received] = await Promise.all([send(), listen()])
    return { sent: toHex(sent), received: toHex(received) }
  })
}

/** Takes a file that is offered on `stream`, if `decide` returns where to put it; `undefined` if it does not. */
export async function receiveFile(
  stream: PeerloomStream,
  signal: AbortSignal,
  decide: (offer: FileOffer) => Promise<FileSink | undefined>,
  onProgress: (stored: number) => void,
): Promise<(Digests & { file: Blob }) | undefined> {
  return ending(stream, signal, async (signal) => {
    const reader = new ByteReader(stream.readable, signal)
    const writer = stream.writable.getWriter()
    const offer = await readOffer(reader)
    // Whoever offers waits for the answer; something from there can only be the end of the stream.
    const withdrawn = reader.more().then(() => {
      throw new Error('the other page sent the file before it was asked to')
    })
    const sink = await Promise.race([decide(offer), withdrawn])
    withdrawn.catch(() => {})
    if (!sink) {
      await writer.write(Uint8Array.of(UNWANTED))
      await writer.close()
      return undefined
    }
    try {
      await orAborted(writer.write(Uint8Array.of(WANTED)), signal)
      using hash = new Sha256()
      let stored = 0
      for (let received = 0; received < offer.size; ) {
        const chunk = await reader.some(offer.size - received)
        received += chunk.length
        await hash.update(chunk)
        const now = await sink.write(chunk, received === offer.size)
        if (now === stored) continue
        stored = now
        onProgress(stored)
        await orAborted(writer.write(encodeCount(stored)), signal)
      }
      const received = await hash.digest()
      const sent = await reader.exactly(DIGEST_LENGTH)
      const file = await sink.finish()
      await orAborted(writer.write(received), signal)
      await orAborted(writer.close(), signal)
      return { sent: toHex(sent), received: toHex(received), file }
    } catch (error) {
      await sink.discard()
      throw error
    }
  })
}

/** Runs one side of a transfer: when it fails in one place, everything else of it ends too. */
async function ending<T>(
  stream: PeerloomStream,
  signal: AbortSignal,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const failed = new AbortController()
  try {
    return await run(AbortSignal.any([signal, failed.signal]))
  } catch (error) {
    failed.abort(error)
    stream.abort(error)
    throw error
  }
}

/** What may be sent before more is stored at the other end. */
class Window {
  #left = WINDOW
  #wake = () => {}

  async take(bytes: number): Promise<void> {
    while (this.#left < bytes) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    this.#left -= bytes
  }

  give(bytes: number): void {
    this.#left += bytes
    this.#wake()
  }
}

function encodeOffer({ name, size, type }: FileOffer): Uint8Array<ArrayBuffer> {
  const offer: FileOffer = { name, size, type }
  const text = new TextEncoder().encode(JSON.stringify(offer))
  const bytes = new Uint8Array(4 + text.length)
  new DataView(bytes.buffer).setUint32(0, text.length)
  bytes.set(text, 4)
  return bytes
}

async function readOffer(reader: ByteReader): Promise<FileOffer> {
  const length = viewOf(await reader.exactly(4)).getUint32(0)
  if (length > LONGEST_OFFER) throw new Error('the description of the file is too long')
  const offer: unknown = JSON.parse(new TextDecoder().decode(await reader.exactly(length)))
  const { name, size, type } = (offer ?? {}) as Partial<Record<keyof FileOffer, unknown>>
  if (typeof name !== 'string' || typeof type !== 'string' || !Number.isSafeInteger(size) || Number(size) < 0)
    throw new Error('the description of the file is wrong')
  return { name, size: Number(size), type }
}

function encodeCount(count: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8)
  viewOf(bytes).setBigUint64(0, BigInt(count))
  return bytes
}

const decodeCount = (bytes: Uint8Array) => Number(viewOf(bytes).getBigUint64(0))

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
