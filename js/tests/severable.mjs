// A network that can be cut: what stands between a page and a server, and forwards only while it is told to.
import dgram from 'node:dgram'
import net from 'node:net'

/** Forwards UDP. Every client has a socket of its own, as behind a NAT. */
async function forwardUdp(host, port) {
  const flows = new Map()
  let cut = false
  const front = dgram.createSocket('udp4')
  const flowOf = (client) => {
    const key = `${client.address}:${client.port}`
    if (!flows.has(key)) {
      const back = dgram.createSocket('udp4')
      const flow = { back, dead: false }
      flows.set(key, flow)
      back.on('error', () => {})
      back.on('message', (packet) => {
        if (!cut && !flow.dead) front.send(packet, client.port, client.address)
      })
    }
    return flows.get(key)
  }
  // A packet for nobody comes back as an error of the next one.
  front.on('error', () => {})
  front.on('message', (packet, client) => {
    const flow = flowOf(client)
    if (!cut && !flow.dead) flow.back.send(packet, port, host)
  })
  await new Promise((resolve) => front.bind(0, resolve))
  return {
    port: front.address().port,
    cut() {
      cut = true
    },
    restore(forget) {
      cut = false
      if (forget) for (const flow of flows.values()) flow.dead = true
    },
    close() {
      front.close()
      for (const { back } of flows.values()) back.close()
    },
  }
}

/** Forwards TCP. */
async function forwardTcp(host, port) {
  const pairs = new Set()
  let cut = false
  const connect = (pair) => {
    pair.back = net.connect(port, host)
    pair.back.on('error', () => pair.front.destroy())
    pair.front.on('error', () => pair.back.destroy())
    pair.front.pipe(pair.back)
    pair.back.pipe(pair.front)
  }
  const hold = ({ front, back }) => {
    front.unpipe(back)
    back?.unpipe(front)
    front.pause()
    back?.pause()
  }
  const front = net.createServer((socket) => {
    const pair = { front: socket, back: undefined }
    pairs.add(pair)
    socket.on('close', () => pairs.delete(pair))
    if (!cut) return connect(pair)
    socket.on('error', () => {})
    socket.pause()
  })
  await new Promise((resolve) => front.listen(0, resolve))
  return {
    port: front.address().port,
    cut() {
      cut = true
      for (const pair of pairs) hold(pair)
    },
    restore(forget) {
      cut = false
      for (const pair of forget ? [] : pairs) {
        if (!pair.back) connect(pair)
        else {
          pair.front.pipe(pair.back)
          pair.back.pipe(pair.front)
        }
      }
    },
    close() {
      front.close()
      for (const { front, back } of pairs) {
        front.destroy()
        back?.destroy()
      }
    },
  }
}

/**
 * A way to each of `addresses`, by name, that all can be cut together. While it is cut nothing is forwarded and nobody is told,
 * as with a cable that is pulled out.
 */
export class SeverableNetwork {
  addresses = {}
  #ways = []

  static async to(addresses) {
    const network = new SeverableNetwork()
    for (const [name, address] of Object.entries(addresses)) {
      // The host is that of the address: what a WebRTC server sees of a client must be no loopback address, or Firefox gives up.
      const [, host, protocol, port] = /^\/ip4\/([\d.]+)\/(tcp|udp)\/(\d+)/.exec(address)
      const way = await (protocol === 'tcp' ? forwardTcp : forwardUdp)(host, Number(port))
      network.#ways.push(way)
      network.addresses[name] = address.replace(/\/(tcp|udp)\/\d+/, `/${protocol}/${way.port}`)
    }
    return network
  }

  cut() {
    for (const way of this.#ways) way.cut()
  }

  /** Forwards again: everything, or only what is `another` network's, in which nobody knows of the connections that there were. */
  restore({ another = false } = {}) {
    for (const way of this.#ways) way.restore(another)
  }

  close() {
    for (const way of this.#ways) way.close()
  }
}
