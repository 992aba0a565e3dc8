// Two pages that are peers of each other, in real browsers, with a real relay between them to begin with.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { browsers } from './support/browsers.mjs'
import { PeerloomServer } from './support/peerloom_server.mjs'
import { RoomPage } from './support/room_page.mjs'
import { startSite } from './support/site.mjs'

const MB = 1_000_000

const files = mkdtempSync(join(tmpdir(), 'peerloom-room-files-'))
const small = makeFile('three megabytes.bin', 3 * MB)
const large = makeFile('two hundred megabytes.bin', 200 * MB)
// Takes no room on the disk, and longer on its way than any test.
const endless = join(files, 'endless.bin')
writeFileSync(endless, '')
truncateSync(endless, 4096 * MB)
after(() => rmSync(files, { recursive: true }))

const [chromium, firefox] = browsers()
const PAIRINGS = [
  { name: 'Chromium and Chromium', kinds: [chromium, chromium] },
  { name: 'two tabs of one Chromium', kinds: [chromium], tabs: true },
  { name: 'Firefox and Firefox', kinds: [firefox, firefox] },
  { name: 'Chromium and Firefox', kinds: [chromium, firefox] },
  { name: 'Firefox and Chromium', kinds: [firefox, chromium] },
]

for (const { name, kinds, tabs } of PAIRINGS) {
  const missing = kinds.map((kind) => kind.missing).find((reason) => reason) ?? false

  describe(name, { skip: missing }, () => {
    let server
    let site
    let opened = []
    /** In which the one who invites is, and in which whoever is invited. */
    let hosting
    let joining

    before(async () => {
      server = await PeerloomServer.start()
      site = await startSite(server)
      opened = await Promise.all(kinds.map((kind) => kind.open()))
      hosting = opened[0]
      joining = tabs ? opened[0] : opened[1]
    })
    after(async () => {
      for (const browser of opened) await browser.close()
      site?.close()
      await server?.close()
    })

    /** Two pages that are connected directly. */
    async function meet(at = site) {
      const host = await RoomPage.open(hosting, at)
      const guest = await RoomPage.open(joining, at, await host.link())
      const ids = { host: await host.peerId(), guest: await guest.peerId() }
      assert.notEqual(ids.host, ids.guest)
      await Promise.all([host.hasPath(ids.guest, 'direct'), guest.hasPath(ids.host, 'direct')])
      return { host, guest, ids }
    }

    async function talk(one, other, about) {
      await one.say(`${about}?`)
      await other.hears(`${about}?`)
      await other.say(`${about}!`)
      await one.hears(`${about}!`)
      assert.equal(await one.delivered(`${about}?`), '✓ delivered')
      assert.equal(await other.delivered(`${about}!`), '✓ delivered')
    }

    async function send(from, to, file) {
      await from.sendFile(file.path)
      await to.press('Accept')
      const [sent, received] = await Promise.all([from.transfer('done'), to.transfer('done')])
      for (const text of [sent, received]) {
        assert.match(text, /Both pages have the same SHA-256/)
        assert.ok(text.includes(file.hash), `${text}\nis not about ${file.hash}`)
      }
      assert.equal((await to.saved()).name, file.name)
    }

    test(`${name}: find each other, show the direct path, chat, and send files both ways`, async () => {
      const { host, guest, ids } = await meet()
      // The page tries again by itself, which must not hide that the first dial failed.
      assert.equal(await guest.lastProblem(), '')
      assert.match(await host.path(ids.guest), /^Direct, over WebRTC/)
      assert.match(await guest.path(ids.host), /^Direct, over WebRTC/)
      await Promise.all([host.measures(ids.guest), guest.measures(ids.host)])
      await talk(host, guest, 'first')
      await talk(guest, host, 'second')
      await send(guest, host, small)
      await send(host, guest, small)
      await guest.closeUnharmed()
      await host.hasPath(ids.guest, '')
      await host.closeUnharmed()
    })

    test(`${name}: a file can be declined, and cancelled by either side`, async () => {
      const { host, guest } = await meet()
      await guest.sendFile(small.path)
      await host.press('Decline')
      assert.match(await guest.transfer('cancelled'), /Declined/)

      for (const who of [guest, host]) {
        await guest.sendFile(endless)
        await host.press('Accept')
        await Promise.all([host.isInMidTransfer(), guest.isInMidTransfer()])
        await who.press('Cancel')
        const [mine, theirs] = [who, who === guest ? host : guest]
        assert.match(await mine.transfer('cancelled'), /^Cancelled after/)
        assert.match(await theirs.transfer('cancelled'), /^The other page cancelled after/)
      }
      await send(guest, host, small)
      await guest.closeUnharmed()
      await host.closeUnharmed()
    })

    test(`${name}: a page that reloads is the same peer again, and is found again`, async () => {
      const { host, guest, ids } = await meet()
      const link = await host.link()
      for (const [reloaded, other, id, otherId] of [
        [host, guest, ids.host, ids.guest],
        [guest, host, ids.guest, ids.host],
      ]) {
        await reloaded.reload()
        assert.equal(await reloaded.peerId(), id)
        await reloaded.hasPath(otherId, 'direct')
        await other.hasPath(id, 'direct')
        await talk(reloaded, other, `back as ${id.slice(-4)}`)
      }
      assert.equal(await host.link(), link)
      await guest.closeUnharmed()
      await host.closeUnharmed()
    })

    test(`${name}: the direct connection outlives the relay`, async () => {
      await withRelayOfItsOwn(async (relay, at) => {
        const { host, guest, ids } = await meet(at)
        await relay.kill()
        await talk(host, guest, 'without a relay')
        await send(guest, host, small)
        assert.match(await guest.path(ids.host), /^Direct/)
        await guest.closeUnharmed()
        await host.closeUnharmed()
      })
    })

    test(`${name}: a relay that is gone is a clear error, and they meet once it is back`, async () => {
      await withRelayOfItsOwn(async (relay, at) => {
        const host = await RoomPage.open(hosting, at)
        const link = await host.link()
        await relay.kill()
        const guest = await RoomPage.open(joining, at, link)
        const { title, advice } = await guest.problem()
        assert.equal(title, 'The relay gives this page no place')
        assert.match(advice, /by itself/)
        const lost = await host.problem()
        assert.equal(lost.title, 'The relay is lost')

        await relay.restart()
        const ids = { host: await host.peerId(), guest: await guest.peerId() }
        await Promise.all([host.hasPath(ids.guest, 'direct'), guest.hasPath(ids.host, 'direct')])
        await Promise.all([host.hasNoProblem(), guest.hasNoProblem()])
        await talk(guest, host, 'after all')
        await guest.closeUnharmed()
        await host.closeUnharmed()
      })
    })

    test(`${name}: whoever is not there any more is a clear error, and is joined when back`, async () => {
      const first = await RoomPage.open(hosting, site)
      const link = await first.link()
      await first.close()
      const guest = await RoomPage.open(joining, site, link)
      const { title, advice } = await guest.problem()
      assert.equal(title, 'Whoever invited is not there')
      assert.match(advice, /new link/)
      // The guest is a host itself.
      const other = await RoomPage.open(hosting, site, await guest.link())
      await other.hasPath(await guest.peerId(), 'direct')
      await other.closeUnharmed()
      await guest.closeUnharmed()
    })

    // Between two tabs of one Chromium the bytes take the same way as between two of them.
    if (kinds[0] === kinds[1]) {
      test(`${name}: a file of 200 MB arrives unharmed`, async (context) => {
        const { host, guest } = await meet()
        const start = performance.now()
        await send(guest, host, large)
        const seconds = (performance.now() - start) / 1000
        context.diagnostic(`${((large.size / seconds) * 1e-6).toFixed(0)} MB/s`)
        await guest.closeUnharmed()
        await host.closeUnharmed()
      })
    }

    if (tabs) {
      test(`${name}: three pages are one room`, async () => {
        const { host, guest, ids } = await meet()
        const third = await RoomPage.open(hosting, site, await host.link())
        const id = await third.peerId()
        await Promise.all([third.hasPath(ids.host, 'direct'), host.hasPath(id, 'direct')])
        await host.say('to both')
        await Promise.all([guest.hears('to both'), third.hears('to both')])
        assert.equal(await host.delivered('to both'), '✓ delivered')
        for (const page of [third, guest, host]) await page.closeUnharmed()
      })
    }

    async function withRelayOfItsOwn(run) {
      const relay = await PeerloomServer.start()
      const at = await startSite(relay)
      try {
        await run(relay, at)
      } finally {
        at.close()
        await relay.close()
      }
    }
  })
}

for (const { name, missing, open } of browsers()) {
  describe(`${name} alone`, { skip: missing }, () => {
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

    for (const fragment of ['nonsense', '/ip4/127.0.0.1/tcp/1/ws/p2p/12D3KooW', '%E0%A4%A']) {
      test(`${name}: a malformed link is said to be one, and the page invites all the same: ${fragment}`, async () => {
        const page = await RoomPage.open(browser, site, `${site.url}room.html#${fragment}`)
        const { code, advice } = await page.problem()
        assert.equal(code, 'BAD_LINK')
        assert.match(advice, /Ask for it again/)
        assert.match(await page.link(), /\/p2p-circuit\/webrtc\/p2p\/12D3KooW\w{44}$/)
        await page.closeUnharmed()
      })
    }

    test(`${name}: a tab that another one has opened is another peer`, async () => {
      const page = await RoomPage.open(browser, site)
      await page.evaluate(() => {
        window.popup = window.open(location.href)
      })
      const other = await page.until(
        'has opened a tab',
        () => window.popup?.document.querySelector('#own-peer')?.title,
      )
      assert.match(other, /^12D3KooW/)
      assert.notEqual(other, await page.peerId())
      await page.evaluate(() => window.popup.close())
      await page.closeUnharmed()
    })
  })
}

function makeFile(name, size) {
  const path = join(files, name)
  const content = randomBytes(size)
  writeFileSync(path, content)
  return { name, path, size, hash: createHash('sha256').update(content).digest('hex') }
}
