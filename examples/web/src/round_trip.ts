/** Measures the round-trip time on one stream of the ping protocol, twice a second. */
import type { Peer } from 'peerloom'

/** Echoes 32 bytes at a time. */
const PROTOCOL = '/ipfs/ping/1.0.0'
const LENGTH = 32
const INTERVAL_MS = 500

/** Yields milliseconds, one number per ping, until the stream ends or `signal` aborts; then it throws. */
export async function* roundTrips(peer: Peer, signal: AbortSignal): AsyncGenerator<number, never> {
  const stream = await peer.openStream(PROTOCOL, { signal })
  signal.addEventListener('abort', () => stream.abort(signal.reason), { once: true })
  const writer = stream.writable.getWriter()
  const reader = stream.readable.getReader()
  for (;;) {
    const ping = crypto.getRandomValues(new Uint8Array(LENGTH))
    const start = performance.now()
    await writer.write(ping)
    let answered = 0
    while (answered < LENGTH) {
      const { done, value } = await reader.read()
      if (done) throw new Error('the server ended the stream of pings')
      if (value.some((byte, index) => byte !== ping[answered + index]))
        throw new Error('the server answered with other bytes')
      answered += value.length
    }
    yield performance.now() - start
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS))
    signal.throwIfAborted()
  }
}
