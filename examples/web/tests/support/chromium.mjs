// Chromium, by Playwright.
import { chromium } from 'playwright-core'

export async function openChromium(executablePath, { anyCertificate = false } = {}) {
  const browser = await chromium.launch({
    executablePath,
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
  // One for all pages, as they have it in the hands of a user: what they keep is shared.
  const profile = await browser.newContext({ ignoreHTTPSErrors: anyCertificate })
  return {
    async newPage(url) {
      const page = await profile.newPage()
      await page.goto(url)
      return {
        evaluate: (run, ...values) => page.evaluate(`(${run})(...${JSON.stringify(values)})`),
        click: (selector) => page.click(selector),
        fill: (selector, text) => page.fill(selector, text),
        setFile: (selector, path) => page.setInputFiles(selector, path),
        screenshot: (path) => page.screenshot({ path, fullPage: true }),
        reload: () => page.reload(),
        close: () => page.close(),
      }
    },
    close: () => browser.close(),
  }
}
