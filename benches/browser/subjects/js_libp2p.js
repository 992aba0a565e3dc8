import { createPeer, multiaddr } from '../bundles/js_libp2p.js'

export class JsLibp2p {
  name = 'js-libp2p'
  answersEcho = true
  #node

  static async start() {
    return new JsLibp2p(await createPeer())
  }

  constructor(node) {
    this.#node = node
  }

  async dial(_transport, address) {
    const connection = await this.#node.dial(multiaddr(address))
    return {
      openStream: async (protocol) => messageStream(await connection.newStream(protocol)),
      close: () => connection.close(),
    }
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
      return done ? undefined : value
    },
    close: () => stream.close(),
  }
}
