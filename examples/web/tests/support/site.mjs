// The built page on a port of its own, beside what it has to know of the server.
import { readFile } from 'node:fs/promises'
import http from 'node:http'
import { extname, normalize } from 'node:path'

const DIST = new URL('../../dist', import.meta.url).pathname

// Modules and Wasm run only under their right types.
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
}

// What goes wrong in the page and is caught by nobody is collected for the test to look at.
const COLLECT_ERRORS = `<script>
  window.uncaught = []
  addEventListener('error', (event) => uncaught.push(String(event.message)))
  addEventListener('unhandledrejection', (event) => uncaught.push(String(event.reason?.stack ?? event.reason)))
</script>`

/** Serves the page; `server` is asked for its addresses at each request. */
export async function startSite(server) {
  const site = http.createServer(async (request, response) => {
    const path = normalize(new URL(request.url, 'http://site').pathname)
    // Isolated pages have precise clocks.
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin')
    response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp')
    if (path === '/peerloom.json') {
      response.setHeader('Content-Type', 'application/json')
      response.end(JSON.stringify({ peer: server.peer, addresses: server.addresses }))
      return
    }
    const file = path === '/' ? '/index.html' : path
    try {
      const body = await readFile(`${DIST}${file}`)
      response.setHeader('Content-Type', TYPES[extname(file)] ?? 'application/octet-stream')
      const isPage = extname(file) === '.html'
      response.end(isPage ? String(body).replace('<head>', `<head>${COLLECT_ERRORS}`) : body)
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
