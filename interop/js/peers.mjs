// Who plays in the matrix, and how to start each of them.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Browser } from './browser.mjs'
import { CIRCUIT_LIMITS } from './contract.mjs'
import { json, Program } from './program.mjs'
import { PACKAGE } from './site.mjs'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const PACKAGE_BUILT = join(PACKAGE, 'dist')
/** Five questions, each of which may wait three seconds before it costs a dial. */
const AUTONAT_MS = 120_000
const START_MS = 30_000
/** A listener may notice a little later than the dialer. */
const HEARD_MS = 5_000
/** Eight checks, of which each has its own deadline. */
const DIAL_MS = 180_000
const OLDEST_NODE = [22, 12]

/** What protects plain TCP in rows of their own, where otherwise Noise does alone: TLS in its place, or the key of a private network. */
export const PROTECTIONS = ['tls', 'psk']
const SWARM_KEY = fileURLToPath(new URL('swarm.key', import.meta.url))
const ENVIRONMENTS = { tls: { security: 'tls' }, psk: { swarm_key: SWARM_KEY } }
/** Ours are not told to leave Noise out: it is for them to find out that the other one has TLS alone. */
const ENVIRONMENTS_OF_OURS = { psk: ENVIRONMENTS.psk }
const ARGUMENTS = { psk: ['--private-network', SWARM_KEY] }

/** Where a peer listens; the system picks the ports. */
export const LISTEN = {
  tcp: '/ip4/127.0.0.1/tcp/0',
  ws: '/ip4/127.0.0.1/tcp/0/ws',
  quic: '/ip4/127.0.0.1/udp/0/quic-v1',
  webtransport: '/ip4/127.0.0.1/udp/0/quic-v1/webtransport',
  'webrtc-direct': '/ip4/127.0.0.1/udp/0/webrtc-direct',
}

/** What ends the address of a listener that is reached through a relay, by what the connection is then. */
const PATHS = {
  relayed: /\/p2p-circuit\/p2p\/[^/]+$/,
  webrtc: /\/p2p-circuit\/webrtc\/p2p\/[^/]+$/,
}

const RELAY_CONFIG = `
[relay]
enabled = true
circuit_bytes = ${CIRCUIT_LIMITS.bytes}
circuit_seconds = ${CIRCUIT_LIMITS.seconds}
`

/** All is on loopback. */
const AUTONAT_CONFIG = `
[autonat]
private_addresses = true
`

/**
 * Every peer, with `listens` and `dials`: the transports in which it can. `reserves` and `reaches` are the same behind a relay,
 * and a peer that relays has `relay`. `prepare` builds what it needs, and returns why the peer cannot be had on this machine,
 * if so. One that `knowsLimits` keeps protocols that did not opt in off connections that a relay limits; a
 * relay that `tellsMilliseconds` does so where the spec says seconds. Two that both have a transport in `losesDials` do not
 * always connect over it, and one that has it in `losesItsDials` does not always as a dialer, whoever listens. What it can be protected by is in `protections`. Where
 * `resetsLookClosed`, it may not tell a reset from a close: js-libp2p decodes messages later than it notices the end of their channel, and to the users
 * of rust-yamux a reset is an end. Its `defects` tell, for a row, which checks it is known to fail through no fault of the
 * other's, and why; `row` stands for all of them. `programs` is the folder with the programs of this repository; they are built
 * if it is not given.
 */
export function allPeers(programs) {
  return [peerloom(programs), peerloomInPage(), jsOnNode(), jsInPage(), rust(), go(), litep2p()]
}

function peerloom(programs) {
  const all = Object.keys(LISTEN)
  let folder = programs
  const program = () => join(folder, 'peerloom-interop')
  return {
    name: 'peerloom',
    knowsLimits: true,
    ours: true,
    listens: all,
    dials: all,
    protections: PROTECTIONS,
    reserves: ['relayed', 'webrtc'],
    reaches: ['relayed', 'webrtc'],
    prepare() {
      folder ??= buildOurs()
    },
    listen: (transport, protection) => listenOurs(join(folder, 'peerloom'), transport, ARGUMENTS[protection]),
    relay: (transport) => listenOurs(join(folder, 'peerloom'), transport, [], RELAY_CONFIG),
    reserve: (relay, path) => listenWith(program(), ['reserve', relay, path], PATHS[path]),
    serveAutonat: (transport) => listenOurs(join(folder, 'peerloom'), transport, [], AUTONAT_CONFIG),
    askAutonat: (address) => askWith(program(), address),
    dial: (address, without, linger, _browser, protection) =>
      dialWith(program(), ['dial', address, ...without], linger, ENVIRONMENTS_OF_OURS[protection]),
    ping: (address, protection) => pingWith(join(folder, 'peerloom'), address, ARGUMENTS[protection]),
  }
}

function peerloomInPage() {
  return {
    name: 'peerloom in a page',
    knowsLimits: true,
    page: true,
    ours: true,
    listens: [],
    dials: ['ws', 'webtransport', 'webrtc-direct'],
    reserves: ['relayed', 'webrtc'],
    reaches: ['relayed', 'webrtc'],
    prepare() {
      if (!existsSync(PACKAGE_BUILT)) throw new Error('the npm package is missing: cargo xtask npm')
      return Browser.missing()
    },
    reserve: (relay, path, browser) => listenInPage('peerloom', relay, path, browser),
    dial: (address, without, linger, browser) => browser.check('peerloom', address, without, linger, DIAL_MS),
  }
}

function jsOnNode() {
  const peer = fileURLToPath(new URL('peer.mjs', import.meta.url))
  const transports = ['tcp', 'ws', 'webrtc-direct']
  const listenAs = (role, address, path, protection) =>
    listenWith(process.execPath, [peer, role, address, path ?? ''], PATHS[path], ENVIRONMENTS[protection])
  return {
    name: 'js-libp2p',
    knowsLimits: true,
    resetsLookClosed: ['webrtc-direct', 'webrtc'],
    listens: transports,
    dials: transports,
    protections: PROTECTIONS,
    tellsMilliseconds: true,
    losesDials: ['webrtc'],
    reserves: ['relayed', 'webrtc'],
    reaches: ['relayed', 'webrtc'],
    defects: jsDefects,
    prepare: nodeTooOld,
    listen: (transport, protection) => listenAs('listen', LISTEN[transport], undefined, protection),
    relay: (transport) => listenAs('relay', LISTEN[transport]),
    reserve: (relay, path) => listenAs('reserve', relay, path),
    dial: (address, without, linger, _browser, protection) =>
      dialWith(process.execPath, [peer, 'dial', address, ...without], linger, ENVIRONMENTS[protection]),
  }
}

function jsInPage() {
  return {
    name: 'js-libp2p in a page',
    knowsLimits: true,
    losesDials: ['webrtc'],
    resetsLookClosed: ['webrtc-direct', 'webrtc'],
    page: true,
    listens: [],
    dials: ['ws', 'webtransport', 'webrtc-direct'],
    reserves: ['relayed', 'webrtc'],
    reaches: ['relayed', 'webrtc'],
    prepare: Browser.missing,
    reserve: (relay, path, browser) => listenInPage('js-libp2p', relay, path, browser),
    dial: (address, without, linger, browser) =>
      browser.check('js-libp2p', address, without, linger, DIAL_MS),
  }
}

function rust() {
  return {
    ...foreignProgram(() => buildRust('rust-libp2p-peer')),
    name: 'rust-libp2p',
    resetsLookClosed: ['tcp', 'ws', 'relayed'],
    defects: rustDefects,
    // 11 of 60 to go-libp2p; to ours, which waits for it, none of 100.
    losesItsDials: ['webrtc-direct'],
    listens: ['tcp', 'ws', 'quic', 'webrtc-direct'],
    dials: ['tcp', 'ws', 'quic', 'webrtc-direct'],
    protections: PROTECTIONS,
    reserves: ['relayed'],
    reaches: ['relayed'],
  }
}

function go() {
  const all = Object.keys(LISTEN)
  return {
    ...foreignProgram(buildGo),
    name: 'go-libp2p',
    knowsLimits: true,
    defects: goDefects,
    listens: all,
    dials: all,
    protections: PROTECTIONS,
    reserves: ['relayed'],
    reaches: ['relayed'],
  }
}

function litep2p() {
  return {
    ...foreignProgram(() =>
      spawnSync('protoc', ['--version']).status === 0
        ? buildRust('litep2p-peer')
        : { missing: 'there is no protoc on this machine' },
    ),
    name: 'litep2p',
    relay: undefined,
    resetsLookClosed: ['tcp', 'ws'],
    defects: quinnDefects,
    listens: ['tcp', 'ws', 'quic'],
    dials: ['tcp', 'ws', 'quic'],
    reserves: [],
    reaches: [],
  }
}

/** Of a peer that is one program, which `build` makes: returns where it is, or as `missing` why it cannot be had. */
function foreignProgram(build) {
  let program
  return {
    prepare() {
      const built = build()
      program = built.program
      return built.missing
    },
    listen: (transport, protection) =>
      listenWith(program, ['listen', LISTEN[transport]], undefined, ENVIRONMENTS[protection]),
    relay: (transport) => listenWith(program, ['relay', LISTEN[transport]]),
    reserve: (relay, path) => listenWith(program, ['reserve', relay, path], PATHS[path]),
    serveAutonat: (transport) => listenWith(program, ['serve-autonat', LISTEN[transport]]),
    askAutonat: (address) => askWith(program, address),
    dial: (address, without, linger, _browser, protection) =>
      dialWith(program, ['dial', address, ...without], linger, ENVIRONMENTS[protection]),
  }
}

function buildRust(name) {
  const cwd = join(ROOT, 'interop')
  const fetched = spawnSync('cargo', ['fetch', '--locked'], { cwd, encoding: 'utf8' })
  // Its packages may not be to be had on this machine; that it does not compile is a failure.
  if (fetched.status !== 0) return { missing: `its crates cannot be fetched: ${fetched.stderr}` }
  cargo(['build', '--locked', '--package', name], cwd)
  return { program: join(targetFolder(cwd), 'debug', name) }
}

function buildGo() {
  const cwd = join(ROOT, 'interop/go')
  const commands = ['go', '/usr/local/go/bin/go']
  const go = commands.find((command) => spawnSync(command, ['version']).status === 0)
  if (go === undefined) return { missing: 'there is no go on this machine' }
  const fetched = spawnSync(go, ['mod', 'download'], { cwd, encoding: 'utf8' })
  if (fetched.status !== 0) return { missing: `its modules cannot be fetched: ${fetched.stderr}` }
  const program = join(ROOT, 'interop/target/go-libp2p-peer')
  execFileSync(go, ['build', '-o', program, '.'], { cwd, stdio: ['ignore', 'inherit', 'inherit'] })
  return { program }
}

/** Of libp2p 3.3.11, as is known from rows without ours (`--controls`). */
function jsDefects({ dialer, listener, relay }) {
  if (relay === undefined) return {}
  if (dialer.name === 'js-libp2p' && listener.name === 'rust-libp2p') {
    return {
      identify:
        'loses what comes in one read with the answer to its proposal and a FIN, and a relay joins those',
    }
  }
  if (dialer.name === 'go-libp2p' && listener.name === 'js-libp2p') {
    return {
      'half-close': 'never sees a FIN that comes in one read with the proposal, and a relay joins those',
    }
  }
  return {}
}

/** Of go-libp2p 0.51.0. */
function goDefects({ dialer, listener, transport }) {
  if (transport !== 'webtransport' || dialer.name !== 'go-libp2p' || listener.name === 'go-libp2p') return {}
  return {
    row: 'dials only servers that have the QUIC extension RESET_STREAM_AT, which the spec does not ask for',
  }
}

/** Of those that leave it to quinn to reset a stream. */
function quinnDefects({ listener, transport }) {
  if (transport !== 'quic' || !['rust-libp2p', 'litep2p'].includes(listener.name)) return {}
  return { 'remote reset': 'ends the streams that it drops, for that is what quinn does' }
}

/** Of libp2p-webrtc 0.10.0-alpha, the newest there is. */
function rustDefects(row) {
  const { dialer, transport } = row
  if (transport === 'quic') return quinnDefects(row)
  if (transport !== 'webrtc-direct') return {}
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
async function listenOurs(program, transport, more = [], config = undefined) {
  const data = mkdtempSync(join(tmpdir(), 'peerloom-interop-'))
  const args = ['run', '--listen', LISTEN[transport], '--data-dir', data, '--status', '127.0.0.1:0', ...more]
  if (config !== undefined) {
    const file = join(data, 'peerloom.toml')
    writeFileSync(file, config)
    args.push('--config', file)
  }
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

/** Listens, at the first address that `fits`. */
async function listenWith(command, args, fits = /^/, environment = {}) {
  const process = new Program(command, args, [command, ...args].join(' '), environment)
  try {
    const listening = await process.find('where it listens', START_MS, (line) => {
      const said = json(line)
      const address = said?.event === 'listening' && said.addresses.find((address) => fits.test(address))
      return address ? { peer: said.peer, address } : undefined
    })
    return { ...listening, stop: () => process.stop(), heard: hears(process) }
  } catch (error) {
    await process.stop()
    throw error
  }
}

async function listenInPage(page, relay, path, browser) {
  const { peer, addresses, lines, stop } = await browser.listen(page, relay, path)
  const address = addresses.find((address) => PATHS[path].test(address))
  if (address !== undefined) return { peer, address, stop, heard: hears(lines) }
  await stop()
  throw new Error(`the page listens at ${addresses}, of which none is for ${path}`)
}

/** Waits for what a listener tells of a dialer. */
function hears(lines) {
  return (event, dialer, fits = () => true) =>
    lines.find(`"${event}" of ${dialer}`, HEARD_MS, (line) => {
      const said = json(line)
      return said?.event === event && said.peer === dialer && fits(said) ? said : undefined
    })
}

/** The dialer stays connected until `linger` is through with what it found. */
async function dialWith(command, args, linger, environment = {}) {
  const process = new Program(command, args, [command, ...args].join(' '), environment)
  try {
    const outcome = await process.find('what it found', DIAL_MS, (line) => json(line))
    await linger(outcome)
    return outcome
  } finally {
    await process.stop()
  }
}

/** What a peer is told of its addresses by the server of AutoNAT at that address. */
async function askWith(program, address) {
  const process = new Program(program, ['ask-autonat', address], `${program} ask-autonat`)
  try {
    return await process.find('the answers', AUTONAT_MS, (line) => json(line)?.answers)
  } finally {
    await process.stop()
  }
}

async function pingWith(program, address, more = []) {
  const process = new Program(program, ['ping', address, '--count', '1', '--json', ...more], 'peerloom ping')
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
