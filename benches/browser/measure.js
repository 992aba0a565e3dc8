// What is done on a stream, the same for every subject. A subject's stream has `write(bytes)`, which waits for room,
// `closeWrite()`, `read()`, which gives bytes or undefined at the end, and `close()`.

const ECHO = '/echo/1.0.0'
const PERF = '/perf/1.0.0'

/** What an application hands over at once. */
const CHUNK = new Uint8Array(64 * 1024)

/** One byte there and back on a new stream. */
export async function measureRoundTrip(connection) {
  const stream = await connection.openStream(ECHO)
  await stream.write(new Uint8Array(1))
  const echo = await stream.read()
  if (echo?.byteLength !== 1) throw new Error('one byte was sent and another number came back')
  await stream.close()
}

/**
 * `/perf/1.0.0`: sends `upload` bytes, then asks for `download`. `upload` is the time from the first byte to the first of
 * the answer, which comes when everything has been received; `total` is that to the last byte of the answer.
 */
export async function measurePerf(connection, upload, download) {
  const stream = await connection.openStream(PERF)
  const wanted = new Uint8Array(8)
  new DataView(wanted.buffer).setBigUint64(0, BigInt(download))
  const start = performance.now()
  await stream.write(wanted)
  for (let left = upload; left > 0; left -= CHUNK.length) {
    await stream.write(left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK)
  }
  await stream.closeWrite()
  let received = 0
  let first
  for (let bytes = await stream.read(); bytes !== undefined; bytes = await stream.read()) {
    first ??= performance.now()
    received += bytes.byteLength
    if (received >= download) break
  }
  const end = performance.now()
  if (received !== download) throw new Error(`${download} bytes were asked for, ${received} came`)
  await stream.close()
  return { upload: first - start, total: end - start }
}
