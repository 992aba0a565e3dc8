// Opens a page in Chromium without a window, and prints each object that it passes to `window.report` as a line of JSON.
// Ends when the page calls `window.finish()`, and fails when it calls `window.finish(error)`, throws or says nothing.
//
// usage: node run_page.mjs CHROMIUM URL
import { chromium } from 'playwright-core'

const SILENCE_MS = 300_000

const [executablePath, url] = process.argv.slice(2)
const browser = await chromium.launch({
  executablePath,
  // As root, which containers often are, Chromium's sandbox cannot start.
  chromiumSandbox: process.getuid?.() !== 0,
  args: ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'],
})

const finished = {}
finished.promise = new Promise((resolve, reject) => Object.assign(finished, { resolve, reject }))
// A page may fail before anyone waits for it to finish.
finished.promise.catch(() => {})
let silence
const heard = () => {
  clearTimeout(silence)
  silence = setTimeout(
    () => finished.reject(new Error(`no word from the page in ${SILENCE_MS / 1000} s`)),
    SILENCE_MS,
  )
}

try {
  const page = await browser.newPage()
  page.on('console', (message) => console.error(`[page] ${message.text()}`))
  page.on('pageerror', (error) => finished.reject(error))
  page.on('crash', () => finished.reject(new Error('the page crashed')))
  await page.exposeFunction('report', (sample) => {
    heard()
    console.log(JSON.stringify(sample))
  })
  await page.exposeFunction('finish', (error) => {
    if (error === undefined || error === null) finished.resolve()
    else finished.reject(new Error(String(error)))
  })
  heard()
  await page.goto(url)
  await finished.promise
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
} finally {
  clearTimeout(silence)
  await browser.close()
}
