// Who plays in the matrix, and how to start each of them.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Browser, PACKAGE } from './browser.mjs'
import { json, Program } from './program.mjs'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const PACKAGE_BUILT = join(PACKAGE, 'dist')
const START_MS = 30_000
/** A listener may notice a little later than the dialer. */
const HEARD_MS = 5_000
/** Eight checks, of which each has its own deadline. */
const DIAL_MS = 180_000
const OLDEST_NODE = [22, 12]

/** Where a peer listens; the system picks the ports. */
export const LISTEN = {
  tcp: '/ip4/127.0.0.1/tcp/0',
  ws: '/ip4/127.0.0.1/tcp/0/ws',
  webtransport: '/ip4/127.0.0.1/udp/0/quic-v1/webtransport',
  'webrtc-direct': '/ip4/127.0.0.1/udp/0/webrtc-direct',
}

/**
 * Every peer, with `listens` and `dials`: the transports in which it can. `prepare` builds what it needs, and returns why
 * the peer cannot be had on this machine, if so. A peer that `reports` tells what it sees as a listener, as ../README.md
 * describes. Where `resetsLookClosed`, it may not tell a reset from a close: js-libp2p decodes messages later than it notices
 * the end of their channel, and to the users of rust-yamux a reset is an end. Its `defects` tell, for a row,
 * which checks it is known to fail through no fault of the other's, and why; `row` stands for all of them. `programs` is the folder with the programs of this repository; they are built
 * if it is not given.
 */
export function allPeers(programs) {
  return [peerloom(programs), peerloomInPage(), jsOnNode(), jsInPage(), rust()]
}

function peerloom(programs) {
  const all = Object.keys(LISTEN)
  let folder = programs
  return {
    name: 'peerloom',
    ours: true,
    listens: all,
    dials: all,
    prepare() {
      folder ??= buildOurs()
    },
    listen: (transport) => listenOurs(join(folder, 'peerloom'), transport),
    dial: (address, without, linger) =>
      dialWith(join(folder, 'peerloom-interop'), ['dial', address, ...without], linger),
    ping: (address) => pingWith(join(folder, 'peerloom'), address),
  }
}

function peerloomInPage() {
  return {
    name: 'peerloom in a page',
    page: true,
    ours: true,
    listens: [],
    dials: ['ws', 'webtransport', 'webrtc-direct'],
    prepare() {
      if (!existsSync(PACKAGE_BUILT)) throw new Error('the npm package is missing: cargo xtask npm')
      return Browser.missing()
    },
    dial: (address, without, linger, browser) => browser.check('peerloom', address, without, linger, DIAL_MS),
  }
}

function jsOnNode() {
  const peer = fileURLToPath(new URL('peer.mjs', import.meta.url))
  const transports = ['tcp', 'ws', 'webrtc-direct']
  return {
    name: 'js-libp2p',
    reports: true,
    resetsLookClosed: ['webrtc-direct'],
    listens: transports,
    dials: transports,
    prepare: nodeTooOld,
    listen: (transport) => listenWith(process.execPath, [peer, 'listen', LISTEN[transport]]),
    dial: (address, without, linger) =>
      dialWith(process.execPath, [peer, 'dial', address, ...without], linger),
  }
}

function jsInPage() {
  return {
    name: 'js-libp2p in a page',
    resetsLookClosed: ['webrtc-direct'],
    page: true,
    listens: [],
    dials: ['ws', 'webtransport', 'webrtc-direct'],
    prepare: Browser.missing,
    dial: (address, without, linger, browser) =>
      browser.check('js-libp2p', address, without, linger, DIAL_MS),
  }
}

function rust() {
  const transports = ['tcp', 'ws', 'webrtc-direct']
  let program
  return {
    name: 'rust-libp2p',
    reports: true,
    resetsLookClosed: ['tcp', 'ws'],
    defects: rustDefects,
    listens: transports,
    dials: transports,
    prepare() {
      const cwd = join(ROOT, 'interop')
      const fetched = spawnSync('cargo', ['fetch', '--locked'], { cwd, encoding: 'utf8' })
      // Its packages may not be to be had on this machine; that it does not compile is a failure.
      if (fetched.status !== 0) return `its crates cannot be fetched: ${fetched.stderr}`
      cargo(['build', '--locked'], cwd)
      program = join(targetFolder(cwd), 'debug/rust-libp2p-peer')
    },
    listen: (transport) => listenWith(program, ['listen', LISTEN[transport]]),
    dial: (address, without, linger) => dialWith(program, ['dial', address, ...without], linger),
  }
}

/** Of libp2p-webrtc 0.10.0-alpha, the newest there is. */
function rustDefects({ dialer, transport }) {
  if (transport !== 'webrtc-direct') return {}
  if (dialer.name === 'rust-libp2p') {
    return { row: 'loses half of its dials, if the listener speaks before it has opened channel 0' }
  }
  const defects = {
    echo: 'fails on messages of more than 8 KiB',
    'half-close': 'fails on the acknowledgement of its FIN',
  }
  if (dialer.page) {
    const reason = 'loses streams with the number of an earlier one, which browsers use again'
    const onStreams = ['identify', 'identified', 'ping', 'reset', 'remote reset', 'still alive']
    for (const check of onStreams) defects[check] = reason
  }
  return defects
}

/** The program `peerloom` itself, which prints plain lines and reports nothing of its peers. */
async function listenOurs(program, transport) {
  const data = mkdtempSync(join(tmpdir(), 'peerloom-interop-'))
  const args = ['run', '--listen', LISTEN[transport], '--data-dir', data, '--status', '127.0.0.1:0']
  const process = new Program(program, args, 'peerloom run')
  const stop = async () => {
    await process.stop()
    rmSync(data, { recursive: true })
  }
  try {
    return await process.find('where it listens', START_MS, (line, lines) => {
      if (line !== 'ready') return undefined
      const said = (word) => lines.find((line) => line.startsWith(`${word} `))?.slice(word.length + 1)
      return { peer: said('peer'), address: said('listen'), stop }
    })
  } catch (error) {
    await stop()
    throw error
  }
}

async function listenWith(command, args) {
  const process = new Program(command, args, [command, ...args].join(' '))
  try {
    const { peer, addresses } = await process.find('where it listens', START_MS, (line) => {
      const said = json(line)
      return said?.event === 'listening' ? said : undefined
    })
    return {
      peer,
      address: addresses[0],
      stop: () => process.stop(),
      heard: (event, dialer, fits = () => true) =>
        process.find(`"${event}" of ${dialer}`, HEARD_MS, (line) => {
          const said = json(line)
          return said?.event === event && said.peer === dialer && fits(said) ? said : undefined
        }),
    }
  } catch (error) {
    await process.stop()
    throw error
  }
}

/** The dialer stays connected until `linger` is through with what it found. */
async function dialWith(command, args, linger) {
  const process = new Program(command, args, [command, ...args].join(' '))
  try {
    const outcome = await process.find('what it found', DIAL_MS, (line) => json(line))
    await linger(outcome)
    return outcome
  } finally {
    await process.stop()
  }
}

async function pingWith(program, address) {
  const process = new Program(program, ['ping', address, '--count', '1', '--json'], 'peerloom ping')
  try {
    return await process.find('the round-trip time', START_MS, (line) => json(line))
  } finally {
    await process.stop()
  }
}

function buildOurs() {
  cargo(['build', '--locked', '-p', 'peerloom-server', '-p', 'peerloom-interop'], ROOT)
  return join(targetFolder(ROOT), 'debug')
}

function cargo(args, cwd) {
  execFileSync('cargo', args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] })
}

function targetFolder(cwd) {
  const args = ['metadata', '--format-version', '1', '--no-deps', '--offline']
  return JSON.parse(execFileSync('cargo', args, { cwd, encoding: 'utf8' })).target_directory
}

function nodeTooOld() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  const [oldestMajor, oldestMinor] = OLDEST_NODE
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return undefined
  return `js-libp2p needs Node ${OLDEST_NODE.join('.')}, this is ${process.versions.node}`
}
