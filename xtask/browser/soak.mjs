// Churns connections from Chromium without a window, and tells of each phase with a line of JSON: `warm-up`, then, after
// a line on stdin, `churn`, which adds tabs that go without goodbye.
//
// usage: node soak.mjs CHROMIUM URL SECONDS WARM_UP_SECONDS ADDRESS…
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'

/** Between tabs that are left in the middle: each costs the browser a process. */
const ABANDON_EVERY_MS = 4_000
/** Half of the tabs crash, the others are closed; a browser tells the server of neither, or of the second only. */
const CRASH = 'chrome://crash'

const [executablePath, url, seconds, warmUpSeconds, ...addresses] = process.argv.slice(2)
const browser = await chromium.launch({
  executablePath,
  // As root, which containers often are, Chromium's sandbox cannot start.
  chromiumSandbox: process.getuid?.() !== 0,
  args: ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'],
})
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

try {
  const { page, memory } = await churningPage()
  const warmUp = await churn(page, Number(warmUpSeconds))
  console.log(JSON.stringify({ phase: 'warm-up', ...warmUp, ...(await memory()) }))
  await input.next()

  const until = Date.now() + Number(seconds) * 1000
  const [churned, abandoned] = await Promise.all([churn(page, Number(seconds)), abandonUntil(until)])
  console.log(JSON.stringify({ phase: 'churn', ...churned, ...(await memory()), abandoned }))
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
} finally {
  await browser.close()
  process.stdin.destroy()
}

/** The page, and what measures its memory, after everything that can be collected was. */
async function churningPage() {
  const context = await browser.newContext()
  const page = await context.newPage()
  page.on('console', (message) => console.error(`[page] ${message.text()}`))
  page.on('pageerror', (error) => console.error(`[page] ${error.message}`))
  await page.addInitScript(() => {
    const instantiate = WebAssembly.instantiateStreaming
    WebAssembly.instantiateStreaming = async (...given) => {
      const result = await instantiate.apply(WebAssembly, given)
      window.wasmMemory = result.instance.exports.memory
      return result
    }
  })
  await open(page)
  const session = await context.newCDPSession(page)
  const memory = async () => {
    // Twice: the first frees what finalizers of the second wait for.
    await session.send('HeapProfiler.collectGarbage')
    await session.send('HeapProfiler.collectGarbage')
    const { usedSize } = await session.send('Runtime.getHeapUsage')
    return { heap: usedSize, wasm: await page.evaluate(() => window.wasmMemory.buffer.byteLength) }
  }
  return { page, memory }
}

async function open(page) {
  await page.goto(url)
  await page.waitForFunction(() => window.churn !== undefined)
}

async function churn(page, seconds) {
  return await page.evaluate(([addresses, ms]) => window.churn(addresses, ms), [addresses, seconds * 1000])
}

async function abandonUntil(until) {
  const total = { tabs: 0, dials: 0, connected: 0, refused: 0, silent: 0, failures: [] }
  while (Date.now() < until) {
    const context = await browser.newContext()
    const tab = await context.newPage()
    await open(tab)
    const outcome = await tab.evaluate((addresses) => window.abandon(addresses), addresses)
    for (const key of ['dials', 'connected', 'refused', 'silent']) total[key] += outcome[key]
    total.failures.push(...outcome.failures)
    if (total.tabs % 2 === 0) {
      const crashed = new Promise((resolve) => tab.once('crash', resolve))
      // Never arrives anywhere.
      tab.goto(CRASH).catch(() => {})
      await crashed
    }
    await context.close()
    total.tabs++
    await new Promise((resolve) => setTimeout(resolve, Math.min(ABANDON_EVERY_MS, until - Date.now())))
  }
  return total
}
