// What runs in the page while its server, its network or its own time is taken away: one node for each transport.
import { Peerloom } from '/src/index.js'
import { echo, event } from './waiting.mjs'

/** By transport: the node, the peer that it keeps, its stream and its ping, and what has happened. */
const kept = new Map()
let listening

const each = async (run) => {
  const all = await Promise.all([...kept].map(async ([name, entry]) => [name, await run(entry)]))
  return Object.fromEntries(all)
}

/** Keeps the server at each address, in a node that can take no other way. */
export async function keepAll(addresses) {
  for (const [transport, address] of Object.entries(addresses)) {
    const place = address.slice(0, address.indexOf('/p2p/'))
    const node = await Peerloom.create({
      identity: 'ephemeral',
      connectionGate: { mayDialAddress: (dialed) => dialed.startsWith(place) },
    })
    const entry = { node, losses: [], opened: 0 }
    kept.set(transport, entry)
    node.addEventListener('peer:lost', ({ detail }) => entry.losses.push(detail.reason.code))
    node.addEventListener('connection:open', () => entry.opened++)
    const connected = event(node, 'peer:connect')
    entry.peer = await node.keep(address)
    await connected
  }
}

/** Opens a stream on each, on which the server has sent something already, and waits for more of it. */
export function openStreams() {
  return each(async (entry) => {
    const stream = await entry.node.openStream(entry.peer, '/echo/1.0.0')
    const reader = stream.readable.getReader()
    entry.writer = stream.writable.getWriter()
    entry.writer.closed.catch(() => {})
    await entry.writer.write(new Uint8Array([1]))
    await reader.read()
    entry.reading = reader.read().then(
      ({ value }) => [...value],
      (error) => `${error.name} ${error.code}`,
    )
  })
}

/** What came on the streams; an error, if that is what came. */
export const readStreams = () => each((entry) => entry.reading)

/** Has the server send one more byte on each stream. */
export const continueStreams = () => each((entry) => entry.writer.write(new Uint8Array([2])).catch(() => {}))

/** Starts a ping on each, which is under way when this returns. */
export async function startPings() {
  for (const entry of kept.values()) {
    entry.pinging = entry.node.ping(entry.peer).then(
      () => 'answered',
      (error) => error.code,
    )
  }
}

export const pings = () => each((entry) => entry.pinging)

/** Waits until each has a connection that works, and is at rest; then what there is, and what it took. */
export const again = () =>
  each(async (entry) => {
    const { node, peer } = entry
    const open = (...options) => node.openStream(peer, ...options)
    for (;;) {
      // Beside a connection that is given up, there may be two for a moment.
      const answer = await echo({ openStream: open }, 'hello').catch((error) => error.code)
      const [connection] = node.peers
      if (answer === 'hello' && node.peers.length === 1) {
        const { id, transport, direction, direct } = connection
        const agent = node.details(peer).agentVersion?.split('/')[0]
        return { id, transport, direction, direct, agent, losses: entry.losses, opened: entry.opened }
      }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  })

/** As a browser tells when it has a network again. */
export async function tellOnline() {
  dispatchEvent(new Event('online'))
}

/** Listens at the relay, in a node of its own. */
export async function listenAt(relay) {
  const node = await Peerloom.create({ identity: 'ephemeral' })
  await node.handle('/echo/1.0.0', ({ stream }) => stream.readable.pipeTo(stream.writable), { limited: true })
  listening = { node, lost: event(node, 'relay:lost'), reserved: undefined }
  listening.addresses = await node.listen(`${relay}/p2p-circuit`)
  listening.reserved = event(node, 'relay:reserved')
}

/** Waits until the place at the relay was lost and is there again, and has somebody come through it. */
export async function reachedAgain() {
  const { node, addresses } = listening
  const { retryIn } = await listening.lost
  const { renewed } = await listening.reserved
  await using visitor = await Peerloom.create({ identity: 'ephemeral' })
  const peer = await visitor.dial(addresses.at(-1))
  const said = await echo(peer, 'through the relay', { limited: true })
  return { said, renewed, tries: typeof retryIn, same: addresses.every((it) => node.addresses.includes(it)) }
}

export async function closeAll() {
  await listening?.node.close()
  listening = undefined
  await each(({ node }) => node.close())
  kept.clear()
}
