// What a page keeps while its server, its network or its own time is taken away, in real browsers and over every transport that
// they have. All transports go through a scenario together, each in a node of its own, because most of the time is waiting.
import assert from 'node:assert/strict'
import { networkInterfaces } from 'node:os'
import { after, afterEach, before, beforeEach, describe, test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { browsers } from '../../examples/web/tests/support/browsers.mjs'
import { PeerloomServer } from '../../examples/web/tests/support/peerloom_server.mjs'
import { runInPage } from './in_page.mjs'
import { SeverableNetwork } from './severable.mjs'
import { startSite } from './site.mjs'

// Firefox never dials WebRTC to loopback.
const outside = Object.values(networkInterfaces())
  .flat()
  .find(({ internal, family }) => !internal && family === 'IPv4')?.address

const TRANSPORTS = {
  webtransport: /^\/ip4\/127\..*\/webtransport\//,
  websocket: /^\/ip4\/127\..*\/ws\//,
  'webrtc-direct': outside && new RegExp(`^/ip4/${outside.replaceAll('.', '\\.')}/.*/webrtc-direct/`),
}

/** A check of five seconds, the longest wait of a first attempt, and a dial on a slow machine. */
const AT_ONCE_MS = 20_000
/** The server asks every 15 seconds whether somebody is there, and waits 10 for an answer; half a minute more for a slow machine. */
const GIVEN_UP_MS = 55_000

const outages = ({ name, missing, open }) =>
  describe(name, { skip: missing, concurrency: 1 }, () => {
    let browser
    let server
    let network
    let site
    let page

    const inPage = (run, ...values) => runInPage(page, run, ...values)
    const addresses = () => {
      const found = Object.entries(TRANSPORTS).map(([transport, pattern]) => [
        transport,
        pattern && server.addresses.find((address) => pattern.test(address)),
      ])
      return Object.fromEntries(found.filter(([, address]) => address))
    }
    /** For each transport, the same. */
    const all = (value) => Object.fromEntries(Object.keys(addresses()).map((transport) => [transport, value]))

    /** What is known of the one connection to the server. */
    const connection = (transport) => ({
      id: server.peer,
      transport,
      direction: 'outbound',
      direct: true,
      agent: 'peerloom',
    })
    /** That the connections are those that there were from the beginning. */
    const assertSame = async () => {
      for (const [transport, outcome] of Object.entries(await inPage('again'))) {
        assert.deepEqual(outcome, { ...connection(transport), losses: [], opened: 1 })
      }
    }

    /** That all work again soon: over connections that have survived, as QUIC's and ICE's may, or over new ones. */
    const assertThereAgain = async () => {
      const start = Date.now()
      const outcomes = await inPage('again')
      const took = Date.now() - start
      await inPage('continueStreams')
      const reads = await inPage('readStreams')
      for (const [transport, { losses, opened, ...described }] of Object.entries(outcomes)) {
        assert.deepEqual(described, connection(transport))
        if (opened === 1) assert.deepEqual(reads[transport], [2], `${transport}: ${losses.join(' ')}`)
        else assert.match(reads[transport], /^PeerloomError ERR_(CONNECTION_CLOSED|TIMED_OUT)$/, transport)
      }
      assert.ok(took < AT_ONCE_MS, `${took} ms`)
    }

    /**
     * Takes the network away and gives it back. Nothing is forwarded meanwhile, because what the browsers themselves can do is not
     * enough: Chromium's `setOffline` makes `navigator.onLine` false, tells the page, and stops its WebSockets (which go on where
     * they were), but neither WebTransport nor WebRTC; and to this Firefox, which WebDriver drives, nobody can say it, so that the page is
     * told by an event of ours.
     */
    const goOffline = async (offline, options) => {
      if (offline) network.cut()
      else network.restore(options)
      if (browser.setOffline) await browser.setOffline(offline)
      else if (!offline) await inPage('tellOnline')
    }

    /**
     * Stops the page meanwhile: its process has no time, as on a phone that has better things to do. Nobody is told. It is harsher
     * than a tab that Chromium freezes, which goes on to answer what comes over the network, as the test of that shows; Firefox
     * freezes no tabs.
     */
    const stopped = async (meanwhile) => {
      const processes = await browser.pageProcesses()
      assert.notEqual(processes.length, 0)
      for (const id of processes) process.kill(id, 'SIGSTOP')
      await meanwhile().finally(() => {
        for (const id of processes) process.kill(id, 'SIGCONT')
      })
    }

    before(async () => {
      browser = await open()
    })
    after(() => browser?.close())
    beforeEach(async () => {
      server = await PeerloomServer.start()
      site = await startSite(() => server.kill())
      page = await browser.newPage(site.url)
      network = await SeverableNetwork.to(addresses())
    })
    afterEach(async () => {
      await inPage('closeAll')
      const uncaught = await page.evaluate(() => window.uncaught)
      await page.close()
      network.close()
      site.close()
      await server.close()
      assert.deepEqual(uncaught, [])
    })

    test(`${name}: a server that is killed and started again is there again, and so is the place at its relay`, async () => {
      await inPage('keepAll', network.addresses)
      await inPage('listenAt', addresses().webtransport)
      await inPage('openStreams')
      await server.kill()
      await server.restart()
      // WebSocket fails at once. The others hear nothing from a server that does not know them.
      for (const [transport, end] of Object.entries(await inPage('readStreams'))) {
        assert.match(end, /^PeerloomError ERR_(CONNECTION_CLOSED|TIMED_OUT)$/, transport)
      }
      const outcomes = await inPage('again')
      for (const [transport, { losses, opened, ...described }] of Object.entries(outcomes)) {
        assert.deepEqual(described, connection(transport))
        assert.ok(opened > 1, `${transport}: ${opened} opened, ${losses.join(' ')}`)
      }
      const reached = { said: 'through the relay', renewed: false, tries: 'number', same: true }
      assert.deepEqual(await inPage('reachedAgain'), reached)
    })

    test(`${name}: a network that is away for a moment is not noticed`, async () => {
      await inPage('keepAll', network.addresses)
      await inPage('openStreams')
      await goOffline(true)
      await inPage('startPings')
      await inPage('continueStreams')
      await wait(3000)
      await goOffline(false)
      assert.deepEqual(await inPage('pings'), all('answered'))
      assert.deepEqual(await inPage('readStreams'), all([2]))
      await assertSame()
    })

    test(`${name}: in another network, everything works again at once`, async () => {
      await inPage('keepAll', network.addresses)
      await inPage('openStreams')
      await goOffline(true)
      await wait(1000)
      await goOffline(false, { another: true })
      await assertThereAgain()
    })

    test(`${name}: a page that was stopped has lost nothing`, async () => {
      await inPage('keepAll', network.addresses)
      await inPage('openStreams')
      // The page asks whether the server is there, with five seconds for an answer; it has no time to read it before. So the timer is
      // late, and the peer is not dead.
      await inPage('startPings')
      await inPage('continueStreams')
      await inPage('tellOnline')
      await stopped(() => wait(7000))
      assert.deepEqual(await inPage('pings'), all('answered'))
      assert.deepEqual(await inPage('readStreams'), all([2]))
      await assertSame()
    })

    // In Chromium now and then the page has crashed when its process goes on after half a minute, whatever it did.
    const crashes =
      name === 'Chromium' && 'Chromium gives up a page whose process is stopped for half a minute'
    test(`${name}: a page that was stopped until the server gave it up is there again`, {
      skip: crashes,
    }, async () => {
      await inPage('keepAll', network.addresses)
      await inPage('openStreams')
      await stopped(async () => {
        const deadline = Date.now() + GIVEN_UP_MS
        while ((await server.connections()) > 0 && Date.now() < deadline) await wait(200)
        assert.equal(await server.connections(), 0)
      })
      await assertThereAgain()
    })

    test(`${name}: a tab that the browser has frozen goes on where it was`, {
      skip: name === 'Firefox' && 'Firefox freezes no tabs',
    }, async () => {
      await inPage('keepAll', network.addresses)
      await inPage('openStreams')
      await page.setFrozen(true)
      await wait(6000)
      await page.setFrozen(false)
      await inPage('continueStreams')
      assert.deepEqual(await inPage('readStreams'), all([2]))
      await assertSame()
    })
  })

// Both browsers at a time: they do little but wait.
describe('outages', { concurrency: true }, () => {
  browsers().forEach(outages)
})
