// A running `peerloom daemon`, and js-libp2p's client of it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createClient } from '@libp2p/daemon-client'
import { multiaddr } from '@multiformats/multiaddr'

const program = process.env.PEERLOOM_BIN ?? '../../target/debug/peerloom'

/** A daemon on every native transport, whose control socket is at `control` or else in its data directory. */
export async function startDaemon(control) {
  const directory = await mkdtemp(join(tmpdir(), 'peerloom-daemon-'))
  const listen = ['/ip4/127.0.0.1/tcp/0', '/ip4/127.0.0.1/udp/0/quic-v1', '/ip4/127.0.0.1/tcp/0/ws']
  const options = control ? ['--listen-control', control] : []
  for (const address of listen) {
    options.push('--listen', address)
  }
  const child = spawn(program, ['daemon', '--status', '127.0.0.1:0', '--data-dir', directory, ...options], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  const daemon = { directory, addresses: [] }
  for await (const line of createInterface({ input: child.stdout })) {
    const [what, value] = line.split(' ')
    if (what === 'ready') break
    if (what === 'listen') daemon.addresses.push(multiaddr(value))
    if (what === 'control') daemon.control = value
    if (what === 'peer') daemon.peer = value
  }
  return Object.assign(daemon, {
    client: createClient(clientAddress(daemon.control)),
    /** Resolves with its exit code. */
    async stop() {
      child.kill('SIGTERM')
      const [code] = await ended
      await rm(directory, { recursive: true })
      return code
    },
  })
}

/** js-libp2p wants the slashes of a path escaped. */
function clientAddress(control) {
  const path = control.match(/^\/unix(\/.*)$/)?.[1]
  return multiaddr(path ? `/unix/${encodeURIComponent(path)}` : control)
}
