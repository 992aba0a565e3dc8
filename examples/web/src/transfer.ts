/** A file's way to the server and back, hashed on both ends; no more of it in memory than is on its way. */
import type { Peer } from 'peerloom'
import { toHex } from './format.ts'
import { Sha256 } from './sha256.ts'
import { eachChunk, orAborted } from './waiting.ts'

/** Echoes every byte; after the end of what it received, it adds the SHA-256 of that. */
const PROTOCOL = '/peerloom/echo-digest/1.0.0'

const DIGEST_LENGTH = 32

/** Browsers read files in chunks of up to 2 MiB; smaller pieces keep the stream, and the progress, moving evenly. */
const PIECE = 64 * 1024

/** The hashes of one file, in hexadecimal, at three places of its way. */
export interface Hashes {
  /** What this page sent. */
  sent: string
  /** What the server received, by its own account. */
  received: string
  /** What came back to this page. */
  returned: string
}

export interface TransferOptions {
  signal: AbortSignal
  /** Told in bytes, often: draw less often than that. */
  onProgress: (sent: number, returned: number) => void
}

/** Sends `file` to `peer` and takes it back. */
export async function sendThereAndBack(peer: Peer, file: File, options: TransferOptions): Promise<Hashes> {
  // The failure of one direction ends the other, which could wait for ever.
  const failed = new AbortController()
  const signal = AbortSignal.any([options.signal, failed.signal])
  const stream = await peer.openStream(PROTOCOL, { signal })
  using sent = new Sha256()
  using returned = new Sha256()
  const progress = { sent: 0, returned: 0 }
  const digest = new Uint8Array(DIGEST_LENGTH)
  let digestLength = 0

  // What has returned was sent, whatever the stream has told of it so far.
  const report = () => options.onProgress(Math.max(progress.sent, progress.returned), progress.returned)

  const send = async () => {
    const writer = stream.writable.getWriter()
    await eachChunk(file.stream(), signal, async (chunk) => {
      const hashed = sent.update(chunk)
      for (let at = 0; at < chunk.length; at += PIECE) {
        const piece = chunk.subarray(at, at + PIECE)
        // Waits while the stream has enough to do; failures come with the next wait.
        await orAborted(writer.ready, signal)
        writer.write(piece).then(
          () => {
            progress.sent += piece.length
            report()
          },
          () => {},
        )
      }
      await hashed
    })
    await orAborted(writer.close(), signal)
  }

  const receive = () =>
    eachChunk(stream.readable, signal, async (chunk) => {
      const echo = chunk.subarray(0, file.size - progress.returned)
      const rest = chunk.subarray(echo.length)
      if (digestLength + rest.length > DIGEST_LENGTH) throw new Error('the server sent more than the file')
      digest.set(rest, digestLength)
      digestLength += rest.length
      await returned.update(echo)
      progress.returned += echo.length
      report()
    })

  try {
    await Promise.all([send(), receive()])
  } catch (error) {
    failed.abort(error)
    // Not awaited: what waits for a server that does not answer would hold up the cancelling.
    stream.abort(error)
    throw error
  }
  if (digestLength < DIGEST_LENGTH) throw new Error('the server ended the stream before the end of the file')
  return {
    sent: toHex(await sent.digest()),
    received: toHex(digest),
    returned: toHex(await returned.digest()),
  }
}
