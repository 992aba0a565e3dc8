// The browsers of this machine, behind the few things that the tests do with one.
//
// Playwright drives Chromium. It drives Firefox only in a patched build of its own, which is a download; the Firefox that people
// have (here Debian's firefox-esr) speaks WebDriver through geckodriver, which the tests of the Wasm need anyway.
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { openChromium } from './chromium.mjs'
import { openFirefox } from './firefox.mjs'

/**
 * `open({ anyCertificate })` starts the browser, or `missing` says what it lacks. With `anyCertificate` its pages trust every
 * server.
 *
 * A browser has `newPage(url)` and `close()`; a page has `evaluate(function, ...arguments)`, `click(selector)`,
 * `fill(selector, text)`, `setFile(selector, path)`, `screenshot(path)`,
 * `reload()` and `close()`. The pages of one browser share what they keep, as tabs do.
 */
export function browsers() {
  const chromium = find(process.env.CHROMIUM, ['chromium', 'chromium-browser', 'google-chrome'])
  const firefox = find(process.env.FIREFOX, ['firefox-esr', 'firefox'])
  const geckodriver = find(process.env.GECKODRIVER, ['geckodriver'])
  return [
    {
      name: 'Chromium',
      missing: chromium ? undefined : 'no Chromium on this machine',
      open: (options) => openChromium(chromium, options),
    },
    {
      name: 'Firefox',
      missing: firefox
        ? geckodriver
          ? undefined
          : 'no geckodriver on this machine'
        : 'no Firefox on this machine',
      open: (options) => openFirefox(firefox, geckodriver, options),
    },
  ]
}

function find(given, names) {
  if (given) return given
  const folders = (process.env.PATH ?? '').split(delimiter)
  const files = names.flatMap((name) => folders.map((folder) => join(folder, name)))
  return files.find((file) => {
    try {
      accessSync(file, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
