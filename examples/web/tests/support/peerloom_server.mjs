// A real `peerloom run`, with an identity and certificates of its own.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const BINARY =
  process.env.PEERLOOM_BIN ?? new URL('../../../../target/debug/peerloom', import.meta.url).pathname
const START_LIMIT_MS = 60_000

// On all interfaces, since Firefox never dials WebRTC to loopback.
const LISTEN = {
  webtransport: (port) => `/ip4/0.0.0.0/udp/${port}/quic-v1/webtransport`,
  webrtc: (port) => `/ip4/0.0.0.0/udp/${port}/webrtc-direct`,
  websocket: (port) => `/ip4/0.0.0.0/tcp/${port}/ws`,
}
const OF_TRANSPORT = {
  webtransport: /\/udp\/(\d+)\/quic-v1\/webtransport\//,
  webrtc: /\/udp\/(\d+)\/webrtc-direct\//,
  websocket: /\/tcp\/(\d+)\/ws\//,
}

export class PeerloomServer {
  peer = ''
  addresses = []
  #status = ''
  #relay = true
  #process
  #data = mkdtempSync(join(tmpdir(), 'peerloom-demo-'))
  /** A test run that is broken off leaves no server behind. */
  #killAtExit = () => this.#process?.kill('SIGKILL')

  constructor() {
    process.once('exit', this.#killAtExit)
  }

  static async start({ relay = true } = {}) {
    const server = new PeerloomServer()
    server.#relay = relay
    await server.#start({ webtransport: 0, webrtc: 0, websocket: 0 })
    return server
  }

  /** A peer id that is valid, but not this server's. */
  static otherPeerId() {
    const data = mkdtempSync(join(tmpdir(), 'peerloom-demo-'))
    try {
      return execFileSync(BINARY, ['id', '--data-dir', data], { encoding: 'utf8' }).trim()
    } finally {
      rmSync(data, { recursive: true })
    }
  }

  /** Ends the process at once, as a crash would. */
  async kill() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    this.#process.kill('SIGKILL')
    await once(this.#process, 'exit')
  }

  /** Starts again with the same identity and certificates, on the same ports. */
  async restart() {
    const ports = {}
    for (const [transport, pattern] of Object.entries(OF_TRANSPORT)) {
      ports[transport] = this.addresses.map((address) => pattern.exec(address)?.[1]).find((port) => port)
    }
    await this.#start(ports)
  }

  /** The connections that the server has now, by its own account. */
  async connections() {
    const response = await fetch(`${this.#status}/metrics`)
    const line = (await response.text()).split('\n').find((line) => line.startsWith('peerloom_connections '))
    return Number(line?.split(' ')[1])
  }

  async close() {
    await this.kill()
    process.off('exit', this.#killAtExit)
    rmSync(this.#data, { recursive: true, force: true })
  }

  async #start(ports) {
    const listen = Object.entries(ports).flatMap(([transport, port]) => ['--listen', LISTEN[transport](port)])
    const options = ['--data-dir', this.#data, '--status', '127.0.0.1:0', ...(this.#relay ? ['--relay'] : [])]
    this.#process = spawn(BINARY, ['run', ...options, ...listen], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.addresses = []
    await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error('the server did not get ready')), START_LIMIT_MS)
      this.#process.once('error', reject)
      this.#process.once('exit', (code) => reject(new Error(`the server ended with ${code}`)))
      createInterface({ input: this.#process.stdout }).on('line', (line) => {
        const [word, value] = line.split(' ')
        if (word === 'peer') this.peer = value
        if (word === 'status') this.#status = value
        if (word === 'listen') this.addresses.push(value)
        if (word !== 'ready') return
        clearTimeout(late)
        resolve()
      })
    })
  }
}
