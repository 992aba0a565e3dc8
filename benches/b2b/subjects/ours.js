import { Peerloom } from '../bundles/peerloom.js'
import { HANDLERS } from '../serve.js'
import { webStream } from '../web_stream.js'

export class Ours {
  #node

  static async start() {
    return new Ours(await Peerloom.create({ identity: 'ephemeral' }))
  }

  constructor(node) {
    this.#node = node
  }

  async listen(relay) {
    for (const [protocol, handler] of Object.entries(HANDLERS)) {
      await this.#node.handle(protocol, ({ stream }) => handler(webStream(stream)))
    }
    const addresses = await this.#node.listen(`${relay}/p2p-circuit`)
    return addresses.find((address) => address.includes('/webrtc/'))
  }

  async dial(address) {
    const peer = await this.#node.dial(address)
    if (address.includes('/webrtc/') && !peer.direct) throw new Error('the connection is not direct')
    return {
      openStream: async (protocol) => webStream(await peer.openStream(protocol)),
      close: () => peer.close(),
    }
  }

  stop() {
    return this.#node.close()
  }
}
