// Runs our peers against foreign ones, in both directions, over every transport that both have and through each other's
// relays, and prints a table.
//
// usage: node run.mjs [--filter TEXT] [--programs FOLDER] [--controls] [--json FILE]
//
// --filter    only the rows whose name contains TEXT, such as "rust-libp2p", "over ws" or "through js"
// --programs  where `peerloom` and `peerloom-interop` have been built, so that they are not built again
// --controls  rows without ours instead, to tell whose fault a failure is
// --json      where the table is written, too
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, describe, it, test } from 'node:test'
import { parseArgs } from 'node:util'
import { autonatTests } from './autonat.mjs'
import { Browser } from './browser.mjs'
import { CHECKS, checksOf, defectsOf, withoutPeer } from './checks.mjs'
import { allPeers } from './peers.mjs'
import { rowsOf } from './rows.mjs'

const { values: options } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    programs: { type: 'string' },
    controls: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
})

/** Nobody's: it is the example of the libp2p spec of peer ids. */
const STRANGER = '12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA'

/** Dials that two such peers may need: they lose every tenth at most. */
const LOSSES = 4

const rows = rowsOf(allPeers(options.programs), options)
if (rows.length === 0) throw new Error(`no row contains ${JSON.stringify(options.filter)}`)

/** Why a peer cannot take part: one that is not to be had is skipped, one that is broken fails. */
const unavailable = new Map()
const broken = new Map()
for (const peer of new Set(rows.flatMap(playersOf))) {
  try {
    const reason = await peer.prepare()
    if (reason !== undefined) unavailable.set(peer, reason)
  } catch (error) {
    broken.set(peer, error)
  }
}

let browser
before(async () => {
  const takesPart = (peer) => !unavailable.has(peer) && !broken.has(peer)
  if (rows.flatMap(playersOf).some((peer) => peer.page && takesPart(peer))) browser = await Browser.start()
})
after(async () => {
  await browser?.stop()
  printTable()
  if (options.json) writeTable(options.json)
})

// Those that the rows have prepared.
const servers = [...new Set(rows.flatMap(playersOf))].filter(({ name }) =>
  ['peerloom', 'go-libp2p'].includes(name),
)
autonatTests(
  servers.filter((peer) => !broken.has(peer)),
  unavailable,
)

for (const row of rows) {
  const peers = playersOf(row)
  const failed = peers.find((peer) => broken.has(peer))
  const missing = peers.find((peer) => unavailable.has(peer))
  if (failed !== undefined) {
    row.results.connect = 'FAIL'
    test(row.name, () => {
      throw broken.get(failed)
    })
  } else if (missing !== undefined || defectsOf(row).row !== undefined) {
    row.skipped = missing === undefined ? defectsOf(row).row : `${missing.name}: ${unavailable.get(missing)}`
    test(row.name, { skip: row.skipped })
  } else {
    describe(row.name, () => runRow(row))
  }
}

function playersOf({ dialer, relay, listener }) {
  return [dialer, relay, listener].filter((peer) => peer !== undefined)
}

function runRow(row) {
  let played
  before(async () => {
    played = await play(row)
  })
  after(() => played?.stop())
  const defects = defectsOf(row)
  for (const [name, check] of checksOf(row)) {
    if (defects[name] !== undefined) {
      row.results[name] = 'skip'
      it(name, { skip: defects[name] })
      continue
    }
    row.results[name] = 'FAIL'
    it(name, async () => {
      assert.ok(played, 'the row could not be played')
      await check(played)
      row.results[name] = 'ok'
    })
  }
}

async function play(row) {
  const { dialer, relay, listener, transport, protection } = row
  const running = []
  const stop = async () => {
    for (const one of running.reverse()) await one.stop()
  }
  try {
    const relaying = await relay?.relay(row.relayTransport)
    if (relaying) running.push(relaying)
    const listening = relay
      ? await listener.reserve(relaying.address, transport, browser)
      : await listener.listen(transport, protection)
    running.push(listening)
    // A dialer that leaves at once may be gone before the listener has asked who it is.
    const identified = async ({ peer, checks }) => {
      if (!checks.connect.error) await listening.heard?.('identified', peer).catch(() => {})
    }
    const without = Object.keys(defectsOf(row))
    let outcome
    for (let attempt = 1; attempt <= attemptsOf(row) && !outcome?.checks.connect.remote; attempt++) {
      outcome = await dialer.dial(listening.address, without, identified, browser, protection)
    }
    if (process.env.INTEROP_VERBOSE) console.error(row.name, JSON.stringify(outcome))
    const wrongAddress = `${withoutPeer(listening.address)}/p2p/${STRANGER}`
    const wrong = await dialer.dial(wrongAddress, [], async () => {}, browser, protection)
    const pinged = relay ? undefined : await dialer.ping?.(listening.address, protection)
    const found = (check) => {
      const result = outcome.checks[check]
      assert.ok(result, 'not tried without a connection')
      assert.ok(!result.error, result.error)
      return result
    }
    return { row, listening, outcome, found, wrong, pinged, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** One, unless two foreign peers are known to lose dials between them, or one loses those that it makes. */
function attemptsOf({ dialer, listener, transport }) {
  const losesBetween = [dialer, listener].every((peer) => peer.losesDials?.includes(transport))
  return losesBetween || dialer.losesItsDials?.includes(transport) ? LOSSES : 1
}

function printTable() {
  const checks = Object.keys(CHECKS)
  const width = Math.max(...rows.map(({ name }) => name.length))
  const line = (name, cells) => {
    const padded = cells.map((cell, at) => cell.padEnd(checks[at].length))
    return [name.padEnd(width), ...padded].join('  ').trimEnd()
  }
  console.log(`\n${line('dialer → listener', checks)}`)
  for (const { name, results, skipped } of rows) {
    const cells = checks.map((check) => results[check] ?? '-')
    console.log(skipped ? `${name.padEnd(width)}  skipped: ${skipped}` : line(name, cells))
  }
  const results = rows.flatMap(({ results }) => Object.values(results))
  const count = (result) => results.filter((other) => other === result).length
  const skipped = rows.filter(({ skipped }) => skipped).length + count('skip')
  console.log(`\n${count('ok')} passed, ${count('FAIL')} failed, ${skipped} skipped\n`)
}

function writeTable(file) {
  const table = rows.map(({ name, results, skipped }) => ({ name, results, skipped }))
  writeFileSync(file, JSON.stringify({ checks: Object.keys(CHECKS), rows: table }))
}
