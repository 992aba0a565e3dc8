// The demo page in real browsers, against a real server.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { browsers } from './support/browsers.mjs'
import { DemoPage } from './support/demo_page.mjs'
import { PeerloomServer } from './support/peerloom_server.mjs'
import { startSite } from './support/site.mjs'

const TRANSPORTS = { webtransport: 'WebTransport', webrtc: 'WebRTC', websocket: 'WebSocket' }
const MIB = 1024 * 1024

const files = mkdtempSync(join(tmpdir(), 'peerloom-demo-files-'))
const content = randomBytes(5 * MIB)
const file = join(files, 'five mebibytes.bin')
writeFileSync(file, content)
// Takes no room on the disk, and longer on its way than any test.
const endlessFile = join(files, 'endless.bin')
writeFileSync(endlessFile, '')
truncateSync(endlessFile, 4096 * MIB)
after(() => rmSync(files, { recursive: true }))

const onlyLoopback = Object.values(networkInterfaces())
  .flat()
  .every((address) => address.internal)

test('the page is built', () => {
  const page = new URL('../dist/index.html', import.meta.url)
  assert.ok(
    existsSync(page),
    'run `cargo xtask demo`, or `npm run build` in examples/web after `cargo xtask npm`',
  )
})

for (const { name, missing, open } of browsers()) {
  describe(name, { skip: missing }, () => {
    let browser
    let server
    let site

    before(async () => {
      server = await PeerloomServer.start()
      site = await startSite(server)
      browser = await open()
    })
    after(async () => {
      await browser?.close()
      site?.close()
      await server?.close()
    })

    for (const [transport, label] of Object.entries(TRANSPORTS)) {
      const skip =
        name === 'Firefox' && transport === 'webrtc' && onlyLoopback
          ? 'Firefox dials WebRTC only to other addresses than loopback, and this machine has none'
          : false

      test(`${name}, ${label}: connects, measures the round trip, and sends a file there and back`, {
        skip,
      }, async () => {
        const page = await DemoPage.open(browser, site)
        assert.match(await page.peerId('own-peer'), /^12D3KooW\w{44}$/)
        await page.connect(transport)
        assert.equal(await page.text('status'), `Connected over ${label}`)
        assert.equal(await page.peerId('server-peer'), server.peer)
        await page.until('shows round trips', () =>
          /^[\d.]+ ms$/.test(document.querySelector('#rtt-last').textContent),
        )
        await page.until('draws round trips', () => document.querySelector('#plot .line') !== null)

        await page.send(file)
        const { text, hashes, marks } = await page.outcome()
        const hash = createHash('sha256').update(content).digest('hex')
        assert.deepEqual(hashes, [hash, hash, hash], text)
        assert.deepEqual(marks, ['✓', '✓', '✓'])

        await page.closeUnharmed()
      })

      test(`${name}, ${label}: a transfer can be cancelled in the middle, and the next one succeeds`, {
        skip,
      }, async () => {
        const page = await DemoPage.open(browser, site)
        await page.connect(transport)
        await page.send(endlessFile)
        await page.isInMidTransfer()
        await page.cancel()
        const cancelled = await page.outcome()
        assert.match(cancelled.text, /^Cancelled/)
        assert.equal(cancelled.hashes, undefined)

        await page.send(file)
        const { text, marks } = await page.outcome()
        assert.deepEqual(marks, ['✓', '✓', '✓'], text)
        await page.closeUnharmed()
      })

      test(`${name}, ${label}: an address with another peer id is refused, and the page says so`, {
        skip,
      }, async () => {
        const page = await DemoPage.open(browser, site)
        const address = await page.choose(transport)
        await page.dialOther(address.replace(server.peer, PeerloomServer.otherPeerId()))
        const { code, advice } = await page.problem()
        assert.equal(code, 'ERR_WRONG_PEER')
        assert.match(advice, /peer id/)

        await page.connect(transport)
        await page.closeUnharmed()
      })

      if (transport !== 'websocket') {
        test(`${name}, ${label}: an address with another certificate hash is refused, and the page says so`, {
          skip,
        }, async () => {
          const page = await DemoPage.open(browser, site)
          const address = await page.choose(transport)
          await page.dialOther(address.replace(/(?<=\/certhash\/)[\w-]+/g, otherHash))
          const { code, advice } = await page.problem()
          assert.match(code, /^ERR_(UNREACHABLE|CERTIFICATE|HANDSHAKE|TIMED_OUT)$/)
          assert.notEqual(advice, '')

          await page.connect(transport)
          await page.closeUnharmed()
        })
      }

      test(`${name}, ${label}: a server killed in mid-transfer is noticed, and is reconnected to once it is back`, {
        skip,
      }, async () => {
        const mortal = await PeerloomServer.start()
        const mortalSite = await startSite(mortal)
        try {
          const page = await DemoPage.open(browser, mortalSite)
          await page.connect(transport)
          await page.send(endlessFile)
          await page.isInMidTransfer()
          await mortal.kill()
          const { code, advice } = await page.problem()
          assert.notEqual(code, '')
          assert.match(advice, /Reconnect/)
          assert.match((await page.outcome()).text, /^The transfer failed/)

          await mortal.restart()
          await page.reconnect()
          await page.isConnected()
          await page.send(file)
          const { text, marks } = await page.outcome()
          assert.deepEqual(marks, ['✓', '✓', '✓'], text)
          await page.closeUnharmed()
        } finally {
          mortalSite.close()
          await mortal.close()
        }
      })

      test(`${name}, ${label}: a page closed while it streams leaves no connection behind`, {
        skip,
      }, async () => {
        await connectionsReach(server, 0)
        const page = await DemoPage.open(browser, site)
        await page.connect(transport)
        await page.send(endlessFile)
        await page.isInMidTransfer()
        assert.equal(await server.connections(), 1)
        await page.close()
        await connectionsReach(server, 0)
      })
    }
  })
}

/** A certhash of the same form as `certhash`, of another certificate. */
function otherHash(certhash) {
  // Multibase base64url of a multihash: one letter, two bytes of header, the digest.
  const multihash = Buffer.from(certhash.slice(1), 'base64url')
  multihash[10] ^= 0xff
  return `u${multihash.toString('base64url')}`
}

/** Waits until the server has `wanted` connections. Of a page that does not say goodbye it learns by pings, after a while. */
async function connectionsReach(server, wanted) {
  const deadline = Date.now() + 60_000
  let connections
  do {
    connections = await server.connections()
    if (connections === wanted) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  } while (Date.now() < deadline)
  assert.equal(connections, wanted, 'connections of the server')
}
