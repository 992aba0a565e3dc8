// The protocols of ../browser/measure.js, answered on the same kind of stream. What a subject calls for each stream that
// comes, by the name of the protocol.

/** What an application hands over at once. */
const CHUNK = new Uint8Array(64 * 1024)

export const HANDLERS = {
  '/echo/1.0.0': async (stream) => {
    for (let bytes = await stream.read(); bytes !== undefined; bytes = await stream.read()) {
      await stream.write(bytes)
    }
    await stream.closeWrite()
  },

  '/perf/1.0.0': async (stream) => {
    const header = new Uint8Array(8)
    let received = 0
    for (let bytes = await stream.read(); bytes !== undefined; bytes = await stream.read()) {
      if (received < header.length) header.set(bytes.subarray(0, header.length - received), received)
      received += bytes.length
    }
    const wanted = Number(new DataView(header.buffer).getBigUint64(0))
    for (let left = wanted; left > 0; left -= CHUNK.length) {
      await stream.write(left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK)
    }
    await stream.closeWrite()
  },
}
