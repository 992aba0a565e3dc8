// js-libp2p under the contract of libp2p/test-plans; test-plans/contract.mjs has the environment. With browser=chromium or
// browser=firefox it dials from a page.
//
// usage: node test-plans.mjs
if (process.env.browser) {
  process.argv.splice(2, Infinity, 'js-libp2p')
  await import('./test-plans/page.mjs')
} else {
  await import('./test-plans/js-libp2p.mjs')
}
