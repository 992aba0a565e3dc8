// Chromium, by Playwright.
import { readFileSync } from 'node:fs'
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
      const inspector = await profile.newCDPSession(page)
      return {
        evaluate: (run, ...values) => page.evaluate(`(${run})(...${JSON.stringify(values)})`),
        click: (selector) => page.click(selector),
        fill: (selector, text) => page.fill(selector, text),
        setFile: (selector, path) => page.setInputFiles(selector, path),
        screenshot: (path) => page.screenshot({ path, fullPage: true }),
        reload: () => page.reload(),
        /** As the browser freezes pages that nobody looks at, and thaws them. */
        setFrozen: (frozen) =>
          inspector.send('Page.setWebLifecycleState', { state: frozen ? 'frozen' : 'active' }),
        close: () => page.close(),
      }
    },
    setOffline: (offline) => profile.setOffline(offline),
    /** The process that the page runs in that has worked most. Others are in store for pages to come, or for the browser's own. */
    async pageProcesses() {
      const inspector = await browser.newBrowserCDPSession()
      const { processInfo } = await inspector.send('SystemInfo.getProcessInfo')
      await inspector.detach()
      const isOwn = (id) => readFileSync(`/proc/${id}/cmdline`, 'utf8').includes('--top-chrome-webui')
      const pages = processInfo.filter(({ type, id }) => type === 'renderer' && !isOwn(id))
      return pages
        .sort((a, b) => b.cpuTime - a.cpuTime)
        .slice(0, 1)
        .map(({ id }) => id)
    },
    close: () => browser.close(),
  }
}
