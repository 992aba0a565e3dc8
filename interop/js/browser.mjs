// Pages in headless Chromium that dial, and that listen through a relay: js-libp2p, bundled, or ours, from the npm package
// as it is published.

import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { chromium } from 'playwright-core'
import { Lines } from './lines.mjs'
import { startSite } from './site.mjs'

/** A browser and the site of its pages. */
export class Browser {
  /** Why there is none on this machine. */
  static missing() {
    return findChromium() === undefined ? 'there is no Chromium on the PATH' : undefined
  }

  static async start() {
    const site = await startSite(['js-libp2p', 'peerloom'])
    const browser = await chromium.launch({
      executablePath: findChromium(),
      // As root, which containers often are, Chromium's sandbox cannot start.
      chromiumSandbox: process.getuid?.() !== 0,
      args: [
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--no-first-run',
        // Addresses in the place of mDNS names: those need multicast, and are answered for once a second at most.
        '--disable-features=WebRtcHideLocalIpsWithMdns',
      ],
    })
    return new Browser(browser, site)
  }

  #browser
  #site

  constructor(browser, site) {
    this.#browser = browser
    this.#site = site
  }

  /** What `window.check(address, without)` of a fresh page finds; the page stays until `linger` is through with that. */
  async check(page, address, without, linger, milliseconds) {
    const tab = await this.#open(page)
    try {
      const late = new Promise((_, reject) => {
        setTimeout(reject, milliseconds, new Error('no word from the page')).unref()
      })
      const checking = tab.page.evaluate((args) => window.check(...args), [address, without])
      const outcome = await Promise.race([checking, tab.failure, late])
      await linger(outcome)
      return outcome
    } finally {
      await tab.close()
    }
  }

  /**
   * Has a fresh page listen through `relay`. Resolves to what `window.listen(relay, path, report)` did, with the lines that
   * it reports, until `stop()`.
   */
  async listen(page, relay, path) {
    let complaint = ''
    const lines = new Lines(() => complaint)
    const tab = await this.#open(page)
    tab.failure.catch((error) => {
      complaint = String(error)
    })
    try {
      await tab.page.exposeFunction('report', (line) => lines.add(JSON.stringify(line)))
      const listening = tab.page.evaluate((args) => window.listen(...args, window.report), [relay, path])
      return { ...(await Promise.race([listening, tab.failure])), lines, stop: () => tab.close() }
    } catch (error) {
      await tab.close()
      throw error
    }
  }

  /** A page that knows nothing of others, and what it fails with, if it does. */
  async #open(name) {
    const context = await this.#browser.newContext()
    const page = await context.newPage()
    if (process.env.INTEROP_VERBOSE) await listen(page)
    const failure = new Promise((_, reject) => page.on('pageerror', reject))
    failure.catch(() => {})
    const close = () => context.close()
    try {
      await page.goto(this.#site.url(name))
    } catch (error) {
      await close()
      throw error
    }
    return { page, failure, close }
  }

  async stop() {
    await this.#browser.close()
    await this.#site.stop()
  }
}

async function listen(tab) {
  tab.on('console', (message) => console.error(`[page] ${message.text()}`))
  await tab.addInitScript(() => {
    localStorage.setItem('peerloom.log', 'debug')
    localStorage.setItem('debug', 'libp2p*')
  })
}

function findChromium() {
  const folders = (process.env.PATH ?? '').split(delimiter)
  const programs = ['chromium', 'chromium-browser', 'google-chrome']
  return programs.flatMap((name) => folders.map((folder) => join(folder, name))).find(existsSync)
}
