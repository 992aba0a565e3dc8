// A page as the dialer of libp2p's test-plans; contract.mjs has the environment.
//
// usage: browser=chromium|firefox node page.mjs peerloom|js-libp2p
import { browsers } from '../../../examples/web/tests/support/browsers.mjs'
import { startSite } from '../site.mjs'
import { readTest, report } from './contract.mjs'
import { Redis } from './redis.mjs'

const [peer] = process.argv.slice(2)
const name = (process.env.browser ?? process.env.BROWSER ?? 'chromium').toLowerCase()
const kind = browsers().find((known) => known.name.toLowerCase() === name)
if (kind === undefined) throw new Error(`no browser is called ${name}`)
if (kind.missing) throw new Error(kind.missing)

const test = readTest()
if (!test.isDialer) throw new Error('a page listens nowhere')
const late = setTimeout(() => {
  console.error(`no result after ${test.milliseconds / 1000} s`)
  process.exit(1)
}, test.milliseconds)

const redis = await Redis.connect(test.redis, test.milliseconds)
const site = await startSite([`test-plans-${peer}`])
// The listeners of these tests sign their certificates themselves.
const browser = await kind.open({ anyCertificate: test.transport === 'wss' })
try {
  const page = await browser.newPage(site.url(`test-plans-${peer}`))
  const address = await redis.pop(test.key, test.milliseconds)
  console.error(`${kind.name} dials ${address}`)
  const outcome = await page.evaluate(dialInPage, address, test)
  if (outcome.error) throw new Error(outcome.error)
  console.log(report(test, outcome))
} finally {
  await browser.close()
  await site.stop()
  redis.close()
  clearTimeout(late)
}

/** Runs in the page, where errors would lose what they say on their way out. */
async function dialInPage(address, test) {
  try {
    return await window.dialAndPing(address, test)
  } catch (error) {
    return { error: `${error.code ?? error.name}: ${error.message}\n${error.stack}` }
  }
}
