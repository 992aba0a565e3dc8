// Pages in headless Chromium that dial, and that listen through a relay: js-libp2p, bundled, or ours, from the npm package
// as it is published.

import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { delimiter, extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'
import { Lines } from './lines.mjs'

const HERE = fileURLToPath(new URL('.', import.meta.url))
export const PACKAGE = fileURLToPath(new URL('../../npm/', import.meta.url))

const CONTENT_TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.wasm': 'application/wasm',
}

/** A browser and the site of its pages. */
export class Browser {
  /** Why there is none on this machine. */
  static missing() {
    return findChromium() === undefined ? 'there is no Chromium on the PATH' : undefined
  }

  static async start() {
    const bundles = await mkdtemp(join(tmpdir(), 'peerloom-interop-'))
    await build({
      entryPoints: [join(HERE, 'page/js-libp2p.mjs'), join(HERE, 'page/peerloom.mjs')],
      outdir: bundles,
      bundle: true,
      format: 'esm',
      // The package is loaded as a page without a bundler would load it.
      external: ['/npm/*'],
      logLevel: 'warning',
    })
    const server = createServer((request, response) => void serve(bundles, request, response))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
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
    return new Browser(browser, server, bundles)
  }

  #browser
  #server
  #bundles

  constructor(browser, server, bundles) {
    this.#browser = browser
    this.#server = server
    this.#bundles = bundles
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
      await page.goto(`http://127.0.0.1:${this.#server.address().port}/?page=${name}`)
    } catch (error) {
      await close()
      throw error
    }
    return { page, failure, close }
  }

  async stop() {
    await this.#browser.close()
    this.#server.closeAllConnections()
    this.#server.close()
    await rm(this.#bundles, { recursive: true })
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

async function serve(bundles, request, response) {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost')
  try {
    const [content, type] = await find(bundles, normalize(pathname), searchParams.get('page'))
    response.writeHead(200, { 'Content-Type': type }).end(content)
  } catch {
    response.writeHead(404).end()
  }
}

async function find(bundles, path, page) {
  if (path === '/') {
    const module = `<!doctype html><script type="module" src="/bundles/${page}.js"></script>`
    return [module, CONTENT_TYPES['.html']]
  }
  const [, folder, ...rest] = path.split('/')
  const file = join({ bundles, npm: PACKAGE }[folder], ...rest)
  return [await readFile(file), CONTENT_TYPES[extname(file)] ?? 'application/octet-stream']
}
