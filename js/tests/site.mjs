// The built package as a web server has it, and a page that knows the tests.
import { readFile } from 'node:fs/promises'
import http from 'node:http'
import { extname, normalize } from 'node:path'

const PACKAGE = new URL('../../npm/dist', import.meta.url).pathname
const TYPES = { '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm' }

// A bare page with a bare script: no bundler has seen the package.
const PAGE = `<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<script>
  window.uncaught = []
  // Firefox's stacks come without the message.
  window.describe = (error) => [error, error?.code, error?.stack].join(' ')
  addEventListener('error', (event) => uncaught.push(String(event.message)))
  addEventListener('unhandledrejection', (event) => uncaught.push(describe(event.reason)))
</script>
<script type="module">
  import * as alone from '/tests/page.mjs'
  import * as peerStore from '/tests/peer_store_page.mjs'
  import * as relayed from '/tests/relayed_page.mjs'
  import * as gating from '/tests/gating_page.mjs'
  import * as outage from '/tests/outage_page.mjs'
  const tests = { ...alone, ...peerStore, ...relayed, ...gating, ...outage }
  window.outcomes = {}
  window.run = (id, name, values) => {
    tests[name](...values).then(
      (value) => { outcomes[id] = { value } },
      (error) => { outcomes[id] = { error: describe(error) } },
    )
  }
</script>`

/** The answer to a question for TXT records (RFC 1035, section 4.1); a text of more than 255 bytes takes several strings. */
function dnsAnswer(query, texts) {
  const labels = []
  let at = 12
  for (; query[at] > 0; at += 1 + query[at]) labels.push(query.toString('utf8', at + 1, at + 1 + query[at]))
  const question = query.subarray(12, at + 5)
  const records = texts(labels.join('.')).map((text) => {
    const bytes = Buffer.from(text)
    const strings = []
    for (let from = 0; from < bytes.length; from += 255) {
      const part = bytes.subarray(from, from + 255)
      strings.push(Buffer.of(part.length), part)
    }
    const data = Buffer.concat(strings)
    // The name is a pointer to the question's.
    const fixed = Buffer.from([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, data.length >> 8, data.length & 255])
    return Buffer.concat([fixed, data])
  })
  const header = Buffer.from([0, 0, 0x81, 0x80, 0, 1, 0, records.length, 0, 0, 0, 0])
  return Buffer.concat([header, question, ...records])
}

/** Serves them; a POST to `/kill` calls `kill`, and `/dns-query` answers with the `texts` of a name (RFC 8484). */
export async function startSite(kill, texts = () => []) {
  const site = http.createServer(async (request, response) => {
    const path = normalize(new URL(request.url, 'http://site').pathname)
    if (path === '/dns-query') {
      const query = []
      for await (const part of request) query.push(part)
      response.setHeader('Content-Type', 'application/dns-message')
      response.end(dnsAnswer(Buffer.concat(query), texts))
      return
    }
    if (path === '/kill') {
      await kill()
      response.end()
      return
    }
    try {
      const own = /^\/tests\/(\w+\.mjs)$/.exec(path)?.[1]
      const file = own ? new URL(own, import.meta.url) : PACKAGE + path
      const body = path === '/' ? PAGE : await readFile(file)
      response.setHeader('Content-Type', TYPES[extname(path)] ?? 'text/html')
      response.end(body)
    } catch {
      response.statusCode = 404
      response.end()
    }
  })
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${site.address().port}/`,
    close() {
      site.closeAllConnections()
      site.close()
    },
  }
}
