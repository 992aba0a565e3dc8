/**
 * Incremental SHA-256.
 *
 * WebCrypto hashes only what is in memory as a whole, and a file of a gigabyte must not be. @noble/hashes is small, audited
 * and has no dependencies of its own. It runs in a worker: each byte is hashed twice, on its way out and on its way back, and
 * the main thread has the encryption of the connection to do.
 */

/** Bytes that may wait for the worker; more would let a fast network fill the memory. */
const MAX_WAITING = 4 * 1024 * 1024

export class Sha256 {
  readonly #worker = new Worker(new URL('./sha256.worker.ts', import.meta.url), { type: 'module' })
  #waiting = 0
  #failure: Error | undefined
  #digest: Uint8Array<ArrayBuffer> | undefined
  #wake = () => {}

  constructor() {
    this.#worker.addEventListener('message', ({ data }: MessageEvent<number | Uint8Array<ArrayBuffer>>) => {
      if (typeof data === 'number') this.#waiting -= data
      else this.#digest = data
      this.#wake()
    })
    this.#worker.addEventListener('error', (event) => {
      this.#failure = new Error(`the hashing worker failed: ${event.message}`)
      this.#wake()
    })
  }

  /** Adds `bytes`, which stay the caller's; resolves when there is room for more. */
  async update(bytes: Uint8Array): Promise<void> {
    const copy = bytes.slice()
    this.#waiting += copy.length
    this.#worker.postMessage(copy, [copy.buffer])
    await this.#until(() => this.#waiting <= MAX_WAITING)
  }

  async digest(): Promise<Uint8Array<ArrayBuffer>> {
    this.#worker.postMessage('digest')
    await this.#until(() => this.#digest !== undefined)
    return this.#digest as Uint8Array<ArrayBuffer>
  }

  /** Ends the worker. */
  [Symbol.dispose](): void {
    this.#worker.terminate()
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#failure) throw this.#failure
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}
