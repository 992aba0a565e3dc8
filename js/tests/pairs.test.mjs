// The package in two pages that are peers of each other, in every pairing of browsers, and what it tells about relays.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { browsers } from '../../examples/web/tests/support/browsers.mjs'
import { PeerloomServer } from '../../examples/web/tests/support/peerloom_server.mjs'
import { runInPage } from './in_page.mjs'
import { startSite } from './site.mjs'

const MIB = 1024 * 1024
const DIALS = 50
/** Of one call of the page, so that a slow machine has time for all of them. */
const BATCH = 10

const [chromium, firefox] = browsers()

const relayAddress = (server) =>
  server.addresses.find((address) => address.startsWith('/ip4/127.') && /\/webtransport\//.test(address))

for (const { name, missing, open } of [chromium, firefox]) {
  describe(`${name} and a relay`, { skip: missing }, () => {
    let browser
    let server
    let site
    let page
    const inPage = (name, ...values) => runInPage(page, name, ...values)

    before(async () => {
      server = await PeerloomServer.start()
      site = await startSite(() => server.kill())
      browser = await open()
      page = await browser.newPage(site.url)
    })
    after(async () => {
      const uncaught = await page?.evaluate(() => window.uncaught)
      await browser?.close()
      site?.close()
      await server?.close()
      assert.deepEqual(uncaught, [])
    })

    test(`${name}: listening at a relay gives addresses, and events tell of them`, async () => {
      const { minutes, ...outcome } = await inPage('listens', relayAddress(server))
      assert.deepEqual(outcome, {
        before: [],
        circuit: true,
        pageToPage: true,
        known: true,
        relay: server.peer,
        renewed: false,
        told: true,
      })
      assert.ok(minutes > 1, `${minutes}`)
    })

    test(`${name}: a node cannot listen where there is no relay`, async () => {
      const other = await PeerloomServer.start({ relay: false })
      try {
        const outcome = await inPage('cannotListen', relayAddress(other), relayAddress(server))
        assert.deepEqual(outcome, {
          noRelay: 'ERR_LISTEN',
          noCircuit: 'ERR_UNSUPPORTED_ADDRESS',
          malformed: 'ERR_INVALID_ARGUMENT',
          addresses: [],
        })
      } finally {
        await other.close()
      }
    })

    test(`${name}: a limited connection carries what opted in, and counts down`, async () => {
      const { used, passed, ...outcome } = await inPage('limits', relayAddress(server))
      assert.deepEqual(outcome, {
        codes: { dialer: 'ERR_LIMITED_CONNECTION', listener: 'ERR_PROTOCOL_NOT_SUPPORTED' },
        connection: { direct: false, limited: true, transport: 'circuit' },
        relay: server.peer,
        limited: true,
        echoed: 10_000,
        over: true,
      })
      assert.ok(used >= 10_000 && used < 12_000, `${used} bytes`)
      assert.ok(passed > 0, `${passed} ms`)
    })

    test(`${name}: a connection that has used up its bytes ends, and says so`, async () => {
      assert.deepEqual(await inPage('usesUp', relayAddress(server)), { reason: 'ERR_CIRCUIT_ENDED' })
    })

    test(`${name}: a relayed connection becomes a direct one by itself`, async () => {
      assert.deepEqual(await inPage('upgrades', relayAddress(server)), {
        relayed: [false, false, false],
        direct: [true, true],
        ids: true,
        echoed: 'over the direct one',
        stream: { direct: true, limited: false, transport: 'webrtc', circuit: true },
        left: true,
        peers: 1,
      })
    })

    test(`${name}: a page is found by its peer id at the relay that both know`, async () => {
      assert.deepEqual(await inPage('dialsByPeerId', relayAddress(server)), {
        unknown: 'ERR_NO_ADDRESSES',
        echoed: 'by name',
      })
    })

    test(`${name}: a page that is not at the relay any more cannot be dialed`, async () => {
      const { refused, peers } = await inPage('notThere', relayAddress(server))
      for (const code of refused) assert.match(code, /^ERR_(UNREACHABLE|HANDSHAKE)$/)
      assert.equal(peers, 0)
    })

    test(`${name}: the loss of the relay is told, and the addresses go`, async () => {
      const { id, reason, retries, addresses } = await inPage('losesRelay', relayAddress(server), '/kill')
      assert.equal(id, server.peer)
      assert.notEqual(reason, '')
      assert.ok(retries)
      assert.deepEqual(addresses, [])
    })
  })
}

for (const [name, kinds] of [
  ['Chromium and Chromium', [chromium, chromium]],
  ['two tabs of one Chromium', [chromium]],
  ['Firefox and Firefox', [firefox, firefox]],
  ['Chromium and Firefox', [chromium, firefox]],
  ['Firefox and Chromium', [firefox, chromium]],
]) {
  const missing = kinds.map((kind) => kind.missing).find((reason) => reason) ?? false

  describe(name, { skip: missing }, () => {
    let server
    let site
    let opened = []
    let pages = []
    let address

    before(async () => {
      server = await PeerloomServer.start()
      site = await startSite(() => server.kill())
      opened = await Promise.all(kinds.map((kind) => kind.open()))
      // The one who is dialed, and the one who dials.
      pages = [await opened[0].newPage(site.url), await opened.at(-1).newPage(site.url)]
      address = await runInPage(pages[0], 'host', relayAddress(server))
    })
    after(async () => {
      const uncaught = []
      for (const page of pages) uncaught.push(...(await page.evaluate(() => window.uncaught)))
      for (const browser of opened) await browser.close()
      site?.close()
      await server?.close()
      assert.deepEqual(uncaught, [])
    })

    test(`${name}: ${DIALS} dials in a row, and none fails`, async (context) => {
      const times = []
      const failures = []
      for (let done = 0; done < DIALS; done += BATCH) {
        const batch = await runInPage(pages[1], 'dialsInARow', address, BATCH)
        times.push(...batch.times)
        failures.push(...batch.failures)
      }
      assert.deepEqual(failures, [])
      times.sort((one, other) => one - other)
      const [median, slowest] = [times[times.length / 2], times.at(-1)].map((time) => time.toFixed(0))
      context.diagnostic(`from dial to direct connection: median ${median} ms, slowest ${slowest} ms`)
    })

    test(`${name}: bytes arrive whole over the direct connection`, async () => {
      const outcome = await runInPage(pages[1], 'carries', address, 8 * MIB)
      assert.deepEqual(outcome, { length: 8 * MIB, equal: true, again: 'still here' })
    })
  })
}
