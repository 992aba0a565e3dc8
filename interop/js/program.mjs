// A program that the runner starts, reads line by line, and ends.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { Lines } from './lines.mjs'

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
  #lines
  #complaint = ''
  #exit

  constructor(command, args, name, environment = {}) {
    this.#lines = new Lines(() => `${name}: ${this.#complaint}`)
    // The pipe to its standard input tells it when we are gone.
    const env = { ...process.env, ...environment }
    this.#child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'pipe'] })
    running.add(this.#child)
    this.#child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#complaint = (this.#complaint + text).slice(-COMPLAINT_CHARACTERS)
      if (process.env.INTEROP_VERBOSE) process.stderr.write(text)
    })
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#lines.add(line))
    this.#exit = new Promise((resolve) => {
      const over = (how) => {
        running.delete(this.#child)
        this.#complaint += how
        this.#lines.end()
        resolve()
      }
      this.#child.on('error', (error) => over(`${error.message}\n`))
      this.#child.on('close', (code, signal) => over(`(ended: ${signal ?? code})\n`))
    })
  }

  /** What `pick` first makes of a line that was or will be printed, or of all of them so far. */
  find(what, milliseconds, pick) {
    return this.#lines.find(what, milliseconds, pick)
  }

  async stop() {
    if (this.#lines.ended) return
    this.#child.kill('SIGTERM')
    const impatience = setTimeout(() => this.#child.kill('SIGKILL'), GRACE_MS)
    await this.#exit
    clearTimeout(impatience)
  }
}

export function json(line) {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}
