// What a peer says, line by line, and whoever waits for a line.

/** Lines that have come, from a program's standard output or from a page. */
export class Lines {
  #lines = []
  #readers = new Set()
  #ended = false
  #complaint

  /** `complaint` tells why a line may be missing. */
  constructor(complaint) {
    this.#complaint = complaint
  }

  get ended() {
    return this.#ended
  }

  add(line) {
    this.#lines.push(line)
    this.#wakeReaders()
  }

  /** No more will come. */
  end() {
    this.#ended = true
    this.#wakeReaders()
  }

  /** What `pick` first makes of a line that was or will be said, or of all of them so far. */
  async find(what, milliseconds, pick) {
    const deadline = Date.now() + milliseconds
    for (;;) {
      for (const [at, line] of this.#lines.entries()) {
        const found = pick(line, this.#lines.slice(0, at + 1))
        if (found !== undefined) return found
      }
      const left = deadline - Date.now()
      if (this.#ended || left <= 0) {
        const why = this.#ended ? 'ended' : `waited ${milliseconds / 1000} s`
        throw new Error(`no word of ${what} (${why})\n${this.#complaint()}`)
      }
      await this.#change(left)
    }
  }

  #change(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(wake, milliseconds)
      const readers = this.#readers
      function wake() {
        clearTimeout(timer)
        readers.delete(wake)
        resolve()
      }
      readers.add(wake)
    })
  }

  #wakeReaders() {
    for (const wake of [...this.#readers]) wake()
  }
}
