// Dials, first bytes and throughput of ours, of js-libp2p and of the browser itself, in turns, against one server.
// `?rounds=` says how many samples of each; one round more comes first and is not counted.
import { measurePerf, measureRoundTrip } from './measure.js'
import { JsLibp2p } from './subjects/js_libp2p.js'
import { Ours } from './subjects/ours.js'
import { Raw } from './subjects/raw.js'

const MIB = 1024 * 1024

/** What is sent and what is received per sample: half a second or more for the fastest. */
const TRANSPORTS = [
  { name: 'webtransport', fits: (address) => address.includes('/webtransport/'), bytes: 48 * MIB },
  { name: 'websocket', fits: (address) => /\/tcp\/\d+\/ws(\/|$)/.test(address), bytes: 48 * MIB },
  { name: 'webrtc-direct', fits: (address) => address.includes('/webrtc-direct/'), bytes: 8 * MIB },
]

const STEP_LIMIT_MS = 120_000

async function run() {
  const rounds = Number(new URLSearchParams(location.search).get('rounds') ?? 7)
  const server = await (await fetch('/peerloom.json')).json()
  const ours = await Ours.start()
  const subjects = [ours, await JsLibp2p.start(), new Raw(ours, server.rawWebSocket)]
  for (const transport of TRANSPORTS) {
    const address = server.addresses.find((a) => transport.fits(a) && a.includes('/127.0.0.1/'))
    if (address === undefined) throw new Error(`the server does not listen on ${transport.name}`)
    for (let round = 0; round <= rounds; round++) {
      const first = round % subjects.length
      for (const subject of [...subjects.slice(first), ...subjects.slice(0, first)]) {
        const report = (what, unit, value) =>
          window.report({ name: `${transport.name} ${what}`, unit, subject: subject.name, value })
        await sample(subject, transport, address, round === 0 ? async () => {} : report)
      }
    }
  }
}

async function sample(subject, transport, address, report) {
  const within = (what, work) => inTime(`${subject.name}: ${transport.name} ${what}`, work)
  const start = performance.now()
  const connection = await within('dial', subject.dial(transport.name, address))
  const dialed = performance.now() - start
  if (subject.answersEcho) {
    await within('echo', measureRoundTrip(connection))
    const echoed = performance.now() - start
    await report('dial', 'ms', dialed)
    await report('dial and first byte', 'ms', echoed)
  } else if (connection.dialed !== undefined) {
    await report('dial', 'ms', connection.dialed)
  }
  const up = await within('upload', measurePerf(connection, transport.bytes, 1))
  await report('throughput up', 'MiB/s', rate(transport.bytes, up.upload))
  const down = await within('download', measurePerf(connection, 0, transport.bytes))
  await report('throughput down', 'MiB/s', rate(transport.bytes, down.total))
  await within('close', connection.close())
}

function rate(bytes, milliseconds) {
  return bytes / MIB / (milliseconds / 1000)
}

async function inTime(what, work) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`${what}: no result in ${STEP_LIMIT_MS / 1000} s`)),
      STEP_LIMIT_MS,
    )
  })
  try {
    return await Promise.race([work, late])
  } catch (error) {
    throw new Error(`${what}: ${error.message ?? error}`, { cause: error })
  } finally {
    clearTimeout(timer)
  }
}

run().then(
  () => window.finish(),
  (error) => window.finish(error.stack ?? String(error)),
)
