// The page of the soak: `window.churn(addresses, milliseconds)` dials, talks and closes for so long and tells how it went;
// `window.abandon(addresses)` dials, talks and leaves everything open, for a tab that is about to be gone.
import { Peerloom } from './npm/dist/src/index.js'

const ECHO = '/echo/1.0.0'
const ECHO_BYTES = 10_000
/** Every dial is answered within this, by a connection or by an error. */
const DIAL_LIMIT_MS = 20_000
const STEP_LIMIT_MS = 20_000
/**
 * Peers that the page is at a time, and how long each pauses between its connections over one transport. A server refuses
 * a peer that has eight connections, and keeps one that was closed for a second, for what is still on its way.
 */
const PEERS = 4
const PAUSE_MS = 200
/** Failures that are told in words; the others are counted. */
const TOLD = 10

const nodes = await Promise.all(
  Array.from({ length: PEERS }, () => Peerloom.create({ identity: 'ephemeral' })),
)

window.churn = async (addresses, milliseconds) => {
  const until = performance.now() + milliseconds
  const outcome = { dials: 0, connected: 0, refused: 0, silent: 0, echoes: 0, closes: 0, failures: [] }
  const keepVisiting = async (node, address) => {
    while (performance.now() < until) {
      try {
        await visit(node, address, outcome)
      } catch (error) {
        if (outcome.failures.length < TOLD) outcome.failures.push(failure(address, error))
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
    }
  }
  // Side by side, at most one connection of each peer over each transport at a time.
  await Promise.all(nodes.flatMap((node) => addresses.map((address) => keepVisiting(node, address))))
  return { ...outcome, left: nodes.flatMap((node) => node.peers).length }
}

window.abandon = async (addresses) => {
  const outcome = { dials: 0, connected: 0, refused: 0, silent: 0, echoes: 0, closes: 0, failures: [] }
  for (const address of addresses) {
    try {
      const peer = await dial(nodes[0], address, outcome)
      const { reader } = await within(STEP_LIMIT_MS, 'echo', echo(peer, outcome))
      // Somebody is waiting for more when the tab goes.
      reader.read().catch(() => {})
    } catch (error) {
      outcome.failures.push(failure(address, error))
    }
  }
  return outcome
}

async function visit(node, address, outcome) {
  const peer = await dial(node, address, outcome)
  const { reader, writer } = await within(STEP_LIMIT_MS, 'echo', echo(peer, outcome))
  await within(STEP_LIMIT_MS, 'close of a stream', writer.close())
  const { done } = await within(STEP_LIMIT_MS, 'end of a stream', reader.read())
  if (!done) throw new Error('more came back than was sent')
  await within(STEP_LIMIT_MS, 'close', peer.close())
  outcome.closes++
}

function failure(address, error) {
  const transport = address.includes('/webtransport/') ? 'webtransport' : 'webrtc-direct'
  return `${transport}: ${error.message}`
}

async function dial(node, address, outcome) {
  outcome.dials++
  try {
    const peer = await within(DIAL_LIMIT_MS, 'dial', node.dial(address))
    outcome.connected++
    return peer
  } catch (error) {
    if (error instanceof Silence) outcome.silent++
    else outcome.refused++
    throw error
  }
}

async function echo(peer, outcome) {
  const stream = await peer.openStream(ECHO)
  const reader = stream.readable.getReader()
  const writer = stream.writable.getWriter()
  const sent = crypto.getRandomValues(new Uint8Array(ECHO_BYTES))
  writer.write(sent).catch(() => {})
  let received = 0
  while (received < sent.length) {
    const { value, done } = await reader.read()
    if (done) throw new Error('the echo ended early')
    if (value.some((byte, at) => byte !== sent[received + at])) throw new Error('the echo is another')
    received += value.length
  }
  outcome.echoes++
  return { reader, writer }
}

class Silence extends Error {}

async function within(milliseconds, what, work) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(reject, milliseconds, new Silence(`no answer in ${milliseconds / 1000} s`))
  })
  try {
    return await Promise.race([work, late])
  } catch (error) {
    error.message = `${what}: ${error.message}`
    throw error
  } finally {
    clearTimeout(timer)
  }
}
