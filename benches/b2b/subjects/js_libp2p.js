import { createPeer, multiaddr } from '../bundles/js_libp2p.js'
import { HANDLERS } from '../serve.js'

export class JsLibp2p {
  #node

  static async start() {
    return new JsLibp2p(await createPeer())
  }

  constructor(node) {
    this.#node = node
  }

  async listen(relay) {
    for (const [protocol, handler] of Object.entries(HANDLERS)) {
      await this.#node.handle(protocol, (stream) => handler(messageStream(stream)))
    }
    await this.#node.components.transportManager.listen([multiaddr(`${relay}/p2p-circuit`)])
    return this.#node
      .getMultiaddrs()
      .map(String)
      .find((address) => address.includes('/webrtc/'))
  }

  async dial(address) {
    const connection = await this.#node.dial(multiaddr(address))
    return {
      openStream: async (protocol) => messageStream(await connection.newStream(protocol)),
      close: () => connection.close(),
    }
  }

  stop() {
    return this.#node.stop()
  }
}

function messageStream(stream) {
  const reader = stream[Symbol.asyncIterator]()
  return {
    async write(bytes) {
      if (!stream.send(bytes)) await stream.onDrain()
    },
    closeWrite: () => stream.close(),
    async read() {
      const { value, done } = await reader.next()
      return done ? undefined : value.subarray()
    },
    close: () => stream.close(),
  }
}
