import { Peerloom } from '../bundles/peerloom.js'

export class Ours {
  name = 'ours'
  answersEcho = true
  #node

  static async start() {
    return new Ours(await Peerloom.create({ identity: 'ephemeral' }))
  }

  constructor(node) {
    this.#node = node
  }

  async dial(_transport, address) {
    const peer = await this.#node.dial(address)
    return {
      openStream: async (protocol) => webStream(await peer.openStream(protocol)),
      close: () => peer.close(),
    }
  }
}

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
