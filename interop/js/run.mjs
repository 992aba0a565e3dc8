// Runs our peers against foreign ones, in both directions, over every transport that both have, and prints a table.
//
// usage: node run.mjs [--filter TEXT] [--programs FOLDER] [--controls]
//
// --filter    only the rows whose name contains TEXT, such as "rust-libp2p" or "over ws"
// --programs  where `peerloom` and `peerloom-interop` have been built, so that they are not built again
// --controls  rows between two foreign peers instead, to tell whose fault a failure is
import assert from 'node:assert/strict'
import { after, before, describe, it, test } from 'node:test'
import { parseArgs } from 'node:util'
import { Browser } from './browser.mjs'
import { ECHO } from './contract.mjs'
import { allPeers } from './peers.mjs'

const { values: options } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    programs: { type: 'string' },
    controls: { type: 'boolean', default: false },
  },
})

/** Nobody's: it is the example of the libp2p spec of peer ids. */
const STRANGER = '12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA'

const EVERYBODYS = ['/ipfs/id/1.0.0', '/ipfs/ping/1.0.0']

/** Where a listener may see a dialer of this machine. */
const OBSERVED = {
  tcp: /^\/ip4\/127\.0\.0\.1\/tcp\/[1-9]\d*(\/|$)/,
  ws: /^\/ip4\/127\.0\.0\.1\/tcp\/[1-9]\d*(\/|$)/,
  webtransport: /^\/ip4\/127\.0\.0\.1\/udp\/[1-9]\d*\/quic-v1(\/|$)/,
  'webrtc-direct': /^\/ip4\/127\.0\.0\.1\/udp\/[1-9]\d*(\/|$)/,
}

/** What is asserted in each row, if it can be told there. */
const CHECKS = {
  connect({ listening, found }) {
    assert.equal(found('connect').remote, listening.peer)
  },
  identify({ row, listening, found }) {
    const { protocols, addresses, observed, asked } = found('identify')
    for (const protocol of [...EVERYBODYS, ECHO]) assert.ok(protocols.includes(protocol), protocols)
    assert.ok(addresses.includes(withoutPeer(listening.address)), `${addresses} lack ${listening.address}`)
    assert.match(observed ?? 'nothing', OBSERVED[row.transport])
    assert.ok(asked ?? true, 'the listener did not ask who dials')
  },
  async identified({ listening, outcome }) {
    const { protocols } = await listening.heard('identified', outcome.peer)
    for (const protocol of EVERYBODYS) assert.ok(protocols.includes(protocol), protocols)
  },
  ping({ found }) {
    assert.ok(found('ping').ms >= 0)
  },
  echo({ found }) {
    assert.deepEqual(found('echo'), { equal: true, end: 'closed' })
  },
  'half-close'({ found }) {
    assert.deepEqual(found('half-close'), { equal: true, end: 'closed' })
  },
  async reset({ row, listening, outcome, found }) {
    found('reset')
    const ends = endsOfReset(row.listener, row.transport)
    await listening.heard?.('echo', outcome.peer, ({ end, bytes }) => ends.includes(end) && bytes === 1)
  },
  'remote reset'({ row, found }) {
    // `peerloom run` has no protocol that resets: it must refuse it, and the connection must survive that.
    const ends = row.listener.reports ? endsOfReset(row.dialer, row.transport) : ['unsupported']
    assert.ok(ends.includes(found('remote reset').end), found('remote reset').end)
  },
  'still alive'({ found }) {
    assert.ok(found('still alive').ms >= 0)
  },
  'wrong peer'({ wrong }) {
    const { error } = wrong.checks.connect
    assert.ok(error, 'a peer id that is not the listener’s was accepted')
    assert.doesNotMatch(error, /no result after/)
  },
  'peerloom ping'({ listening, pinged }) {
    assert.equal(pinged.peer, listening.peer)
  },
}

function checksOf({ dialer, listener }) {
  const impossible = { identified: !listener.reports, 'peerloom ping': dialer.ping === undefined }
  return Object.entries(CHECKS).filter(([name]) => !impossible[name])
}

/** What a foreign peer of the row is known to fail: reasons by the name of the check, or `row`. */
function defectsOf(row) {
  const ofEach = [row.dialer, row.listener].map((peer) => {
    const defects = Object.entries(peer.defects?.(row) ?? {})
    return defects.map(([check, reason]) => [check, `${peer.name}: ${reason}`])
  })
  return Object.fromEntries(ofEach.flat())
}

function endsOfReset(receiver, transport) {
  return receiver.resetsLookClosed?.includes(transport) ? ['reset', 'closed'] : ['reset']
}

const rows = rowsOf(allPeers(options.programs))
if (rows.length === 0) throw new Error(`no row contains ${JSON.stringify(options.filter)}`)

/** Why a peer cannot take part: one that is not to be had is skipped, one that is broken fails. */
const unavailable = new Map()
const broken = new Map()
for (const peer of new Set(rows.flatMap(({ dialer, listener }) => [dialer, listener]))) {
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
  if (rows.some(({ dialer }) => dialer.page && takesPart(dialer))) browser = await Browser.start()
})
after(async () => {
  await browser?.stop()
  printTable()
})

for (const row of rows) {
  const peers = [row.dialer, row.listener]
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

function rowsOf(peers) {
  const rows = []
  for (const dialer of peers) {
    for (const listener of peers) {
      if (options.controls ? dialer.ours || listener.ours : Boolean(dialer.ours) === Boolean(listener.ours))
        continue
      for (const transport of dialer.dials.filter((transport) => listener.listens.includes(transport))) {
        rows.push({
          name: `${dialer.name} → ${listener.name} over ${transport}`,
          dialer,
          listener,
          transport,
          results: {},
        })
      }
    }
  }
  return rows.filter(({ name }) => name.includes(options.filter))
}

function runRow(row) {
  let played
  before(async () => {
    played = await play(row)
  })
  after(() => played?.listening.stop())
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
  const { dialer, listener, transport } = row
  const listening = await listener.listen(transport)
  try {
    // A dialer that leaves at once may be gone before the listener has asked who it is.
    const identified = async ({ peer, checks }) => {
      if (!checks.connect.error) await listening.heard?.('identified', peer).catch(() => {})
    }
    const without = Object.keys(defectsOf(row))
    const outcome = await dialer.dial(listening.address, without, identified, browser)
    const wrongAddress = `${withoutPeer(listening.address)}/p2p/${STRANGER}`
    const wrong = await dialer.dial(wrongAddress, [], async () => {}, browser)
    const pinged = await dialer.ping?.(listening.address)
    const found = (check) => {
      const result = outcome.checks[check]
      assert.ok(result, 'not tried without a connection')
      assert.ok(!result.error, result.error)
      return result
    }
    return { row, listening, outcome, found, wrong, pinged }
  } catch (error) {
    await listening.stop()
    throw error
  }
}

function withoutPeer(address) {
  return address.replace(/\/p2p\/[^/]+$/, '')
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
