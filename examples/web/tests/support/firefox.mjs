// Firefox, by WebDriver (https://www.w3.org/TR/webdriver2/) through geckodriver. The dozen commands that the tests need are fewer
// lines than a library would be dependencies.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'

/** Addresses in the place of mDNS names: those need multicast, and are answered for once a second at most. */
const PREFERENCES = { 'media.peerconnection.ice.obfuscate_host_addresses': false }

/** The key under which WebDriver passes elements. */
const ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'

export async function openFirefox(binary, geckodriver, { anyCertificate = false } = {}) {
  const driver = spawn(geckodriver, ['--port', '0'], { stdio: ['ignore', 'pipe', 'ignore'] })
  process.once('exit', () => driver.kill())
  const { session, browser } = await startSession(await listeningPort(driver), binary, anyCertificate)
  // Stays open: a session ends with its last window.
  const blank = await session('GET', '/window')
  let current = blank

  // A session has one current window: what is done at the same time in another one has to wait.
  let last = Promise.resolve()
  function inWindow(...command) {
    const result = last.then(() => run(...command))
    last = result.catch(() => {})
    return result
  }
  async function run(handle, method, path, body) {
    if (current !== handle) await session('POST', '/window', { handle })
    current = handle
    return session(method, path, body)
  }

  return {
    async newPage(url) {
      if (current !== blank) await inWindow(blank, 'GET', '/window')
      const { handle } = await session('POST', '/window/new', { type: 'tab' })
      const command = (method, path, body) => inWindow(handle, method, path, body)
      const element = async (selector) => {
        const found = await command('POST', '/element', { using: 'css selector', value: selector })
        return `/element/${found[ELEMENT]}`
      }
      await command('POST', '/url', { url })
      return {
        evaluate: (run, ...values) =>
          command('POST', '/execute/sync', { script: `return (${run})(...arguments)`, args: values }),
        click: async (selector) => command('POST', `${await element(selector)}/click`, {}),
        async fill(selector, text) {
          const path = await element(selector)
          await command('POST', `${path}/clear`, {})
          await command('POST', `${path}/value`, { text })
        },
        setFile: async (selector, path) =>
          command('POST', `${await element(selector)}/value`, { text: path }),
        screenshot: async (path) => writeFile(path, await command('GET', '/screenshot'), 'base64'),
        reload: () => command('POST', '/refresh', {}),
        async close() {
          await command('DELETE', '/window')
          current = undefined
        },
      }
    },
    /** The processes that pages run in. */
    pageProcesses: () => pageProcesses(browser),
    async close() {
      await session('DELETE', '')
      driver.kill()
      await once(driver, 'exit')
    },
  }
}

async function listeningPort(driver) {
  const lines = createInterface({ input: driver.stdout })
  for await (const line of lines) {
    const port = /Listening on \S+:(\d+)/.exec(line)?.[1]
    if (!port) continue
    // Whatever it prints later must find a reader.
    driver.stdout.resume()
    return port
  }
  throw new Error('geckodriver did not start')
}

async function startSession(port, binary, acceptInsecureCerts) {
  const send = async (method, path, body) => {
    const response = await fetch(`http://127.0.0.1:${port}/session${path}`, {
      method,
      ...(body && { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } }),
    })
    const { value } = await response.json()
    if (!response.ok) throw new Error(`WebDriver ${method} ${path}: ${value.error}: ${value.message}`)
    return value
  }
  const { sessionId, capabilities } = await send('POST', '', {
    capabilities: {
      alwaysMatch: {
        acceptInsecureCerts,
        'moz:firefoxOptions': { binary, args: ['-headless'], prefs: PREFERENCES },
      },
    },
  })
  return {
    session: (method, path, body) => send(method, `/${sessionId}${path}`, body),
    browser: capabilities['moz:processID'],
  }
}

/** The processes of web content below `browser`, by what Linux tells of processes. */
async function pageProcesses(browser) {
  const parents = new Map()
  const names = new Map()
  for (const id of (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)) {
    // Some have ended meanwhile.
    const stat = await readFile(`/proc/${id}/stat`, 'utf8').catch(() => '')
    const [, name, parent] = /^\d+ \((.*)\) \S+ (\d+)/s.exec(stat) ?? []
    parents.set(id, Number(parent))
    names.set(id, name)
  }
  const isBelow = (id) => id === browser || (parents.has(id) && isBelow(parents.get(id)))
  return [...names.keys()].filter(
    (id) => isBelow(id) && /^(Isolated Web Co|Web Content)$/.test(names.get(id)),
  )
}
