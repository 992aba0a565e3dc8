// What pages learn of peers, and keep.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { browsers } from '../../examples/web/tests/support/browsers.mjs'
import { PeerloomServer } from '../../examples/web/tests/support/peerloom_server.mjs'
import { runInPage } from './in_page.mjs'
import { startSite } from './site.mjs'

for (const { name: browserName, missing, open } of browsers()) {
  describe(`${browserName}, what is kept of peers`, { skip: missing }, () => {
    let browser
    let server
    let site
    let page
    let address

    before(async () => {
      server = await PeerloomServer.start()
      address = server.addresses.find((address) => /\/ws\//.test(address))
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

    const inPage = (name, ...values) => runInPage(page, name, ...values)

    test('a page that is loaded again finds a peer by its id', async () => {
      assert.deepEqual(await inPage('meets', address, 'reload', 'a'), { id: server.peer, kept: true })
      await page.reload()
      const again = await inPage('meetsAgain', server.peer, 'reload', 'a')
      assert.match(again.agentVersion, /^peerloom\//)
      assert.deepEqual(again, { ...again, knew: true, metadata: 'set by a', echo: 'again' })
    })

    test('several tabs share what they keep', async () => {
      const other = await browser.newPage(site.url)
      const met = await Promise.all([
        inPage('meetsSeveralTimes', address, 'shared', 'a'),
        runInPage(other, 'meetsSeveralTimes', address, 'shared', 'b'),
      ])
      assert.deepEqual(met, [[server.peer], [server.peer]])
      assert.equal((await runInPage(other, 'meetsAgain', server.peer, 'shared', 'a')).echo, 'again')
      const forgotten = { addresses: [], dial: 'ERR_NO_ADDRESSES' }
      assert.deepEqual(await inPage('forgets', server.peer, 'shared'), forgotten)
      await other.close()
    })

    test('peers are kept with the identity, unless the application says otherwise', async () => {
      assert.deepEqual(await inPage('whatIsKept'), {
        withIdentity: true,
        notSaid: false,
        ephemeral: false,
        seed: false,
        apart: true,
      })
    })

    test('storage that is missing, forbidden, silent or full keeps nobody from connecting', async () => {
      assert.deepEqual(await inPage('withoutStorage', address), {
        missing: { kept: false, echo: 'missing' },
        forbidden: { kept: false, echo: 'forbidden' },
        silent: { kept: false, echo: 'silent' },
        full: { kept: true, echo: 'full' },
      })
    })

    test('what is no record is skipped and removed', async () => {
      const somebody = '12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7'
      const outcome = await inPage('foreignRecords', address, 'foreign', somebody)
      assert.deepEqual(outcome, { addresses: [], left: null })
    })

    test('what is kept can be deleted under a node', async () => {
      assert.equal(await inPage('deletedDatabase', address, 'deleted'), 0)
    })

    test('tells what a peer speaks each time that it comes', async () => {
      const change = { same: true, echo: true, removed: 0 }
      assert.deepEqual(await inPage('tellsOfProtocols', address), [change, change])
    })
  })
}
