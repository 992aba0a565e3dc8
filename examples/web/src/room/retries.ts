/** How long to wait before the next attempt: longer each time, so that a peer that is back is not run over. */

const FIRST_MS = 1_000
const LONGEST_MS = 15_000

export class Retries {
  #wait = FIRST_MS

  /** Milliseconds; up to a third more by chance, because those who lost the same peer all come back. */
  next(): number {
    const wait = this.#wait * (1 + Math.random() / 3)
    this.#wait = Math.min(this.#wait * 2, LONGEST_MS)
    return wait
  }

  /** Success: the next wait is the first again. */
  reset(): void {
    this.#wait = FIRST_MS
  }
}
