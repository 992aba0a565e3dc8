import { Peerloom } from '../bundles/peerloom.js'
import { webStream } from '../web_stream.js'

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
