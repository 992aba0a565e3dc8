// One of two pages that become peers of each other. xtask/browser/b2b.mjs drives both through `window.bench`.
//
// A subject has `listen(relay)`, which gives an address, and `dial(address)`, which gives a connection with
// `openStream(protocol)` and `close()`. Streams are those of ../browser/measure.js.
import { measurePerf, measureRoundTrip } from './measure.js'
import { JsLibp2p } from './subjects/js_libp2p.js'
import { Ours } from './subjects/ours.js'
import { Raw } from './subjects/raw.js'

/** Longer than any dial on one machine should take; one that takes longer is lost. */
const DIAL_LIMIT_MS = 5_000
const STEP_LIMIT_MS = 60_000

const subjects = { ours: Ours, 'js-libp2p': JsLibp2p, limit: Raw }

/** By subject, the listener of this page, or the connection that stays open. */
const listeners = new Map()
const connections = new Map()

window.bench = {
  /** Makes this page reachable as `subject`; resolves to its address. */
  async listen(subject, relay) {
    const listener = await subjects[subject].start()
    listeners.set(subject, listener)
    return await inTime(`${subject}: listen`, STEP_LIMIT_MS, listener.listen(relay))
  },

  /**
   * Dials as a node that nobody has seen before, connected to the relay or to nobody. Resolves to how long it took to the
   * connection and to the first byte over it, or to why the dial is lost.
   */
  async dial(subject, address, relay) {
    const node = await subjects[subject].start()
    try {
      if (relay !== undefined) await inTime('dial the relay', STEP_LIMIT_MS, node.dial(relay))
      const start = performance.now()
      const connection = await inTime('dial', DIAL_LIMIT_MS, node.dial(address))
      const dialed = performance.now() - start
      await inTime('first byte', DIAL_LIMIT_MS, measureRoundTrip(connection))
      const echoed = performance.now() - start
      await inTime('close', DIAL_LIMIT_MS, connection.close()).catch(() => {})
      return { dialed, echoed }
    } catch (error) {
      return { lost: error.message }
    } finally {
      await inTime('stop', DIAL_LIMIT_MS, node.stop()).catch(() => {})
    }
  },

  /** A connection for `measure`. Where dials get lost, they are tried again. */
  async connect(subject, address, attempts) {
    for (let attempt = 1; ; attempt++) {
      const node = await subjects[subject].start()
      try {
        connections.set(subject, await inTime('dial', DIAL_LIMIT_MS, node.dial(address)))
        return
      } catch (error) {
        if (attempt === attempts) throw error
        await node.stop()
      }
    }
  },

  /** How many milliseconds `bytes` take from this page to the other one, and back. */
  async measure(subject, bytes) {
    const connection = connections.get(subject)
    const up = await inTime(`${subject}: upload`, STEP_LIMIT_MS, measurePerf(connection, bytes, 1))
    const down = await inTime(`${subject}: download`, STEP_LIMIT_MS, measurePerf(connection, 0, bytes))
    return { up: up.upload, down: down.total }
  },
}

async function inTime(what, milliseconds, work) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no result in ${milliseconds / 1000} s`)), milliseconds)
  })
  try {
    return await Promise.race([work, late])
  } catch (error) {
    throw new Error(`${what}: ${error.message ?? error}`, { cause: error })
  } finally {
    clearTimeout(timer)
  }
}
