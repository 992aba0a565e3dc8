// One sample in a fresh browser: from the import to a node that could dial. `?subject=` says whose.
const STARTS = {
  ours: async () => {
    const { Peerloom } = await import('./bundles/peerloom.js')
    await Peerloom.create({ identity: 'ephemeral' })
  },
  'js-libp2p': async () => {
    const { createPeer } = await import('./bundles/js_libp2p.js')
    await createPeer()
  },
}

/** A browser that has just started is busy with itself. */
const SETTLE_MS = 1000

try {
  const subject = new URLSearchParams(location.search).get('subject')
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  const start = performance.now()
  await STARTS[subject]()
  const value = performance.now() - start
  await window.report({ name: 'import to started', unit: 'ms', subject, value })
  window.finish()
} catch (error) {
  window.finish(String(error))
}
