/** Waiting that ends when a signal says so. */

/** `promise`, unless `signal` comes before it. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/** Gives each chunk of `readable` to `use`, up to its end. */
export async function eachChunk(
  readable: ReadableStream<Uint8Array<ArrayBuffer>>,
  signal: AbortSignal,
  use: (chunk: Uint8Array<ArrayBuffer>) => Promise<void>,
): Promise<void> {
  const reader = readable.getReader()
  for (;;) {
    const { done, value } = await orAborted(reader.read(), signal)
    if (done) return
    await use(value)
  }
}

/** Whatever ends it: the time, or `signal`. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, milliseconds)
    if (signal?.aborted) end()
    signal?.addEventListener('abort', end)
  })
}
