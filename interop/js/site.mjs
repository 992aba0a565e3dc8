// The pages of the browsers' peers: `/?page=NAME` loads the bundle of that name.
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const HERE = fileURLToPath(new URL('.', import.meta.url))
/** Our npm package. */
export const PACKAGE = fileURLToPath(new URL('../../npm/', import.meta.url))

const CONTENT_TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.wasm': 'application/wasm',
}

/** Bundles the modules page/NAME.mjs and serves a page for each. */
export async function startSite(names) {
  const bundles = await mkdtemp(join(tmpdir(), 'peerloom-interop-'))
  await build({
    entryPoints: names.map((name) => join(HERE, 'page', `${name}.mjs`)),
    outdir: bundles,
    bundle: true,
    format: 'esm',
    // The package is loaded as a page without a bundler would load it.
    external: ['/npm/*'],
    logLevel: 'warning',
  })
  const server = createServer((request, response) => void serve(bundles, request, response))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: (name) => `http://127.0.0.1:${server.address().port}/?page=${name}`,
    async stop() {
      server.closeAllConnections()
      server.close()
      await rm(bundles, { recursive: true })
    },
  }
}

async function serve(bundles, request, response) {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost')
  // Isolated pages have precise clocks.
  response.setHeader('Cross-Origin-Opener-Policy', 'same-origin')
  response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp')
  try {
    const [content, type] = await find(bundles, normalize(pathname), searchParams.get('page'))
    response.writeHead(200, { 'Content-Type': type }).end(content)
  } catch {
    response.writeHead(404).end()
  }
}

async function find(bundles, path, page) {
  if (path === '/') {
    const module = `<!doctype html><script type="module" src="/bundles/${page}.js"></script>`
    return [module, CONTENT_TYPES['.html']]
  }
  const [, folder, ...rest] = path.split('/')
  const file = join({ bundles, npm: PACKAGE }[folder], ...rest)
  return [await readFile(file), CONTENT_TYPES[extname(file)] ?? 'application/octet-stream']
}
