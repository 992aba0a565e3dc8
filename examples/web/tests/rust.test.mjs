// A program in Rust, the example `chat` of crates/peerloom, that joins a room of pages by its link.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { browsers } from './support/browsers.mjs'
import { PeerloomServer } from './support/peerloom_server.mjs'
import { RoomPage } from './support/room_page.mjs'
import { startSite } from './support/site.mjs'

const PROGRAMS = process.env.PEERLOOM_BIN
  ? dirname(process.env.PEERLOOM_BIN)
  : fileURLToPath(new URL('../../../target/debug', import.meta.url))
const CHAT = join(PROGRAMS, 'examples', 'chat')

for (const { name, missing, open } of browsers()) {
  const skip = missing ?? (existsSync(CHAT) ? false : 'no example chat: cargo build -p peerloom --examples')

  test(`${name}: a Rust program and a page chat directly`, { skip }, async (context) => {
    const server = await PeerloomServer.start()
    context.after(() => server.close())
    const site = await startSite(server)
    context.after(() => site.close())
    const browser = await open()
    context.after(() => browser.close())
    const page = await RoomPage.open(browser, site)

    const chat = spawn(CHAT, [await page.link()], { stdio: ['pipe', 'pipe', 'inherit'] })
    context.after(() => chat.kill())
    const lines = createInterface({ input: chat.stdout })[Symbol.asyncIterator]()
    const peer = await page.until('has a member', () => {
      const member = document.querySelector('#members li[data-path="direct"]')
      return member?.textContent.includes('Rust') && member.dataset.peer
    })
    assert.match(await page.path(peer), /^Direct, over WebRTC/)

    await page.say('Is this Rust?')
    assert.match((await lines.next()).value, /: Is this Rust\?$/)
    assert.equal(await page.delivered('Is this Rust?'), '✓ delivered')
    chat.stdin.write('It is.\n')
    await page.hears('It is.')

    chat.stdin.end()
    assert.deepEqual(await once(chat, 'exit'), [0, null])
    await page.hasPath(peer, '')
    await page.closeUnharmed()
  })
}
