// What the peer programs in JavaScript have in common; ../README.md says it in words.

export const ECHO = '/echo/1.0.0'
/** Reads something, then resets the stream. */
export const RESET = '/peerloom-interop/reset/1.0.0'

/** What the relays of the matrix let each circuit carry. */
export const CIRCUIT_LIMITS = { bytes: 1024 * 1024, seconds: 120 }
/** More than any relay counts as within the limit. */
export const OVER_LIMIT_BYTES = 4 * CIRCUIT_LIMITS.bytes

/** How many bytes the checks send; `limits` are those of a connection that has some. */
export function sizes(limits) {
  if (limits !== undefined) {
    // With the handshakes and what comes back, within the limit of relays that count both directions together.
    return { echo: 128 * 1024, halfClose: 32 * 1024 }
  }
  return {
    // Several windows and many messages of every transport.
    echo: 1024 * 1024,
    // Fits into the first window of every muxer, so that nothing is read before the half-close.
    halfClose: 64 * 1024,
  }
}

/** Whom an address leads to. */
export function targetOf(address) {
  return address.slice(address.lastIndexOf('/') + 1)
}

/** For one check; a browser on a busy machine may take seconds to connect. */
export const CHECK_MS = 20_000

/** Runs `checks` in their order but `without` some, each within its deadline; without a connection, only the first. */
export async function examine(peer, without, checks) {
  const outcome = { peer, checks: {} }
  for (const [name, check] of Object.entries(checks)) {
    // It ends the connection.
    if (name === 'over limit' && outcome.checks.connect.limits === undefined) continue
    if (without.includes(name)) continue
    try {
      outcome.checks[name] = await within(CHECK_MS, check)
    } catch (error) {
      outcome.checks[name] = { error: describe(error) }
      if (name === 'connect') break
    }
  }
  return outcome
}

/** Bytes of which no two stretches are alike, so that a lost, doubled or swapped chunk shows. */
export function pattern(length) {
  const bytes = new Uint8Array(length)
  let state = 0x2545f491
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[at] = state >>> 24
  }
  return bytes
}

export function sameBytes(a, b) {
  return a.length === b.length && a.every((byte, at) => byte === b[at])
}

async function within(milliseconds, check) {
  const controller = new AbortController()
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => {
      const error = new Error(`no result after ${milliseconds / 1000} s`)
      controller.abort(error)
      reject(error)
    }, milliseconds)
  })
  try {
    return await Promise.race([check(controller.signal), late])
  } finally {
    clearTimeout(timer)
  }
}

function describe(error) {
  if (error.errors?.length > 0) return error.errors.map(describe).join('; ')
  return `${error.name}: ${error.message}`
}
