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
  import * as relayed from '/tests/relayed_page.mjs'
  const tests = { ...alone, ...relayed }
  window.outcomes = {}
  window.run = (id, name, values) => {
    tests[name](...values).then(
      (value) => { outcomes[id] = { value } },
      (error) => { outcomes[id] = { error: describe(error) } },
    )
  }
</script>`

/** Serves them; a POST to `/kill` calls `kill`. */
export async function startSite(kill) {
  const site = http.createServer(async (request, response) => {
    const path = normalize(new URL(request.url, 'http://site').pathname)
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
