/** A pair of WHATWG streams, ours or the browser's own. */
export function webStream({ readable, writable }) {
  const reader = readable.getReader()
  const writer = writable.getWriter()
  return {
    async write(bytes) {
      await writer.ready
      // What fails here fails the next `ready` too.
      writer.write(bytes).catch(() => {})
    },
    closeWrite: () => writer.close(),
    read: async () => (await reader.read()).value,
    async close() {
      await Promise.all([reader.cancel().catch(() => {}), writer.close().catch(() => {})])
    },
  }
}
