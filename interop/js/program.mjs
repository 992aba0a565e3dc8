// A program that the runner starts, reads line by line, and ends.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/** How much of what a program complains is kept for the error message. */
const COMPLAINT_CHARACTERS = 2_000
/** Between asking a program to end and ending it. */
const GRACE_MS = 5_000

const running = new Set()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export class Program {
  #child
  #name
  #lines = []
  #readers = new Set()
  #complaint = ''
  #ended = false
  #exit

  constructor(command, args, name) {
    this.#name = name
    // The pipe to its standard input tells it when we are gone.
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    running.add(this.#child)
    this.#child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#complaint = (this.#complaint + text).slice(-COMPLAINT_CHARACTERS)
      if (process.env.INTEROP_VERBOSE) process.stderr.write(text)
    })
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.#lines.push(line)
      this.#wakeReaders()
    })
    this.#exit = new Promise((resolve) => {
      const over = (how) => {
        running.delete(this.#child)
        this.#complaint += how
        this.#ended = true
        this.#wakeReaders()
        resolve()
      }
      this.#child.on('error', (error) => over(`${error.message}\n`))
      this.#child.on('close', (code, signal) => over(`(ended: ${signal ?? code})\n`))
    })
  }

  /** What `pick` first makes of a line that was or will be printed, or of all of them so far. */
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
        throw new Error(`${this.#name} did not say ${what} (${why})\n${this.#complaint}`)
      }
      await this.#change(left)
    }
  }

  async stop() {
    if (this.#ended) return
    this.#child.kill('SIGTERM')
    const impatience = setTimeout(() => this.#child.kill('SIGKILL'), GRACE_MS)
    await this.#exit
    clearTimeout(impatience)
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

export function json(line) {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}
