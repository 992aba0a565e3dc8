// Runs what is to be tested inside a page.
import assert from 'node:assert/strict'

/** A browser takes half a minute to give a silent server up, and machines may be slow. */
const LIMIT_MS = 120_000

let runs = 0

/** Runs the function `name` that the page has from the tests, and returns what it returns. */
export async function runInPage(page, name, ...values) {
  const id = `run ${++runs}`
  const deadline = Date.now() + LIMIT_MS
  const poll = async (read) => {
    for (;;) {
      const found = await read()
      if (found) return found
      assert.ok(Date.now() < deadline, `${name} took longer than ${LIMIT_MS} ms`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  await poll(() => page.evaluate(() => typeof window.run === 'function'))
  await page.evaluate((id, name, values) => window.run(id, name, values), id, name, values)
  const outcome = await poll(() => page.evaluate((id) => window.outcomes[id] ?? null, id))
  assert.equal(outcome.error, undefined, outcome.error)
  return outcome.value
}
