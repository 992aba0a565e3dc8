// Two tabs of one Chromium without a window become peers of each other, again and again, as ours, js-libp2p and the browser
// itself. Prints a line of JSON for each sample: { name, unit, subject, value }.
//
// usage: node b2b.mjs CHROMIUM URL RELAY
import { chromium } from 'playwright-core'

const [executablePath, url, relay] = process.argv.slice(2)

const OURS = 'ours'
const PEER = 'js-libp2p'
const LIMIT = 'limit'

/** Dials by a node that is connected to nobody. Ours has to show that it loses none. */
const FRESH_DIALS = { [OURS]: 200, [PEER]: 50, [LIMIT]: 50 }
/** Dials by a node that is connected to the relay. */
const WARM_DIALS = { [OURS]: 50, [PEER]: 25 }
/** Samples of the throughput of each subject; one more comes first and is not counted. */
const ROUNDS = 5
const BYTES = 24 * 1024 * 1024
/** js-libp2p may lose the dial of the connection that is measured. */
const ATTEMPTS = 5

const MIB = 1024 * 1024

const report = (name, unit, subject, value) => console.log(JSON.stringify({ name, unit, subject, value }))

const browser = await chromium.launch({
  executablePath,
  // As root, which containers often are, Chromium's sandbox cannot start.
  chromiumSandbox: process.getuid?.() !== 0,
  args: ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'],
})
try {
  const context = await browser.newContext()
  const listener = await open(context, 'listener')
  const dialer = await open(context, 'dialer')
  const addresses = {}
  for (const subject of [OURS, PEER, LIMIT]) {
    addresses[subject] = await listener.evaluate((args) => window.bench.listen(...args), [subject, relay])
  }
  await dials(dialer, addresses, FRESH_DIALS, '')
  await dials(dialer, addresses, WARM_DIALS, ', relay connected', relay)
  await throughput(dialer, addresses)
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
} finally {
  await browser.close()
}

async function open(context, name) {
  const page = await context.newPage()
  page.on('console', (message) => console.error(`[${name}] ${message.text()}`))
  page.on('pageerror', (error) => console.error(`[${name}] ${error}`))
  await page.goto(url)
  await page.waitForFunction(() => window.bench !== undefined)
  return page
}

/** As many dials as `counts` says, of all subjects in turns, so that whatever the machine does meets them all. */
async function dials(dialer, addresses, counts, condition, relay) {
  const most = Math.max(...Object.values(counts))
  const lost = Object.fromEntries(Object.keys(counts).map((subject) => [subject, 0]))
  // One more comes first and is not counted: code is compiled, a browser's services start.
  for (let round = -1; round < most; round++) {
    for (const [subject, count] of Object.entries(counts)) {
      // Spread over all rounds.
      if (Math.floor(((round + 1) * count) / most) === Math.floor((round * count) / most)) continue
      const dial = [subject, addresses[subject], relay]
      const outcome = await dialer.evaluate((args) => window.bench.dial(...args), dial)
      if (round < 0) continue
      if (outcome.lost !== undefined) {
        lost[subject] += 1
        console.error(`${subject} lost a dial${condition}: ${outcome.lost}`)
        continue
      }
      report(`dial to direct${condition}`, 'ms', subject, outcome.dialed)
      report(`dial and first byte${condition}`, 'ms', subject, outcome.echoed)
    }
  }
  for (const [subject, count] of Object.entries(counts)) {
    console.error(`${subject}: ${lost[subject]} of ${count} dials lost${condition}`)
    report(`dials lost${condition}`, '%', subject, (100 * lost[subject]) / count)
  }
}

async function throughput(dialer, addresses) {
  const subjects = [OURS, PEER, LIMIT]
  for (const subject of subjects) {
    const args = [subject, addresses[subject], ATTEMPTS]
    await dialer.evaluate((args) => window.bench.connect(...args), args)
  }
  for (let round = 0; round <= ROUNDS; round++) {
    const first = round % subjects.length
    for (const subject of [...subjects.slice(first), ...subjects.slice(0, first)]) {
      const took = await dialer.evaluate((args) => window.bench.measure(...args), [subject, BYTES])
      if (round === 0) continue
      report('throughput dialer to listener', 'MiB/s', subject, BYTES / MIB / (took.up / 1000))
      report('throughput listener to dialer', 'MiB/s', subject, BYTES / MIB / (took.down / 1000))
    }
  }
}
