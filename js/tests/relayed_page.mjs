// What runs in the page about relays, and about pages that find each other through one.
import { Peerloom } from '/src/index.js'
import { code, echo, event } from './waiting.mjs'

const ephemeral = () => Peerloom.create({ identity: 'ephemeral' })

/** A node of a page that can do without a relay only what servers can: it has no WebRTC. */
async function withoutWebRtc() {
  const { RTCPeerConnection } = globalThis
  delete globalThis.RTCPeerConnection
  try {
    return await ephemeral()
  } finally {
    Object.defineProperty(globalThis, 'RTCPeerConnection', {
      value: RTCPeerConnection,
      configurable: true,
      writable: true,
    })
  }
}

const echoes = async ({ stream }) => stream.readable.pipeTo(stream.writable)

/** The address at which only the relay is between. */
const circuitOf = (addresses) => addresses.find((address) => /\/p2p-circuit\/p2p\/[^/]+$/.test(address))
const pageToPageOf = (addresses) =>
  addresses.find((address) => /\/p2p-circuit\/webrtc\/p2p\/[^/]+$/.test(address))

export async function listens(relay) {
  await using node = await ephemeral()
  const before = node.addresses
  const reserving = event(node, 'relay:reserved')
  const changing = event(node, 'addresses:change', (addresses) => addresses.some(() => true))
  const addresses = await node.listen(`${relay}/p2p-circuit`)
  const reserved = await reserving
  await changing
  const own = (address) => address.startsWith(relay) && address.endsWith(`/p2p/${node.peerId}`)
  return {
    before,
    circuit: own(circuitOf(addresses)),
    pageToPage: own(pageToPageOf(addresses)),
    known: addresses.every((address) => node.addresses.includes(address)),
    relay: reserved.relay,
    renewed: reserved.renewed,
    told: reserved.addresses.every((address) => addresses.includes(address)),
    minutes: (reserved.expires.getTime() - Date.now()) / 60_000,
  }
}

/** A server that is no relay; what does not lead to one. */
export async function cannotListen(noRelay, relay) {
  await using node = await ephemeral()
  return {
    noRelay: await code(node.listen(`${noRelay}/p2p-circuit`)),
    noCircuit: await code(node.listen(relay)),
    malformed: await code(node.listen('/p2p-circuit/nonsense')),
    addresses: node.addresses,
  }
}

/** Two nodes of which one is reached through the relay and in no other way. */
async function relayed(relay, run) {
  await using listening = await withoutWebRtc()
  await using dialing = await withoutWebRtc()
  const address = circuitOf(await listening.listen(`${relay}/p2p-circuit`))
  const peer = await dialing.dial(address)
  return await run(peer, listening, dialing)
}

export function limits(relay) {
  return relayed(relay, async (peer, listening) => {
    await listening.handle('/echo/1.0.0', echoes)
    const codes = {
      // The dialer does not ask for a limited connection; then the listener does not.
      dialer: await code(peer.openStream('/echo/1.0.0')),
      listener: await code(echo(peer, 'x', { limited: true })),
    }
    await listening.unhandle('/echo/1.0.0')
    await listening.handle('/echo/1.0.0', echoes, { limited: true })
    const before = peer.circuit
    const echoed = await echo(peer, 'a'.repeat(10_000), { limited: true })
    const after = peer.circuit
    await peer.close()
    return {
      codes,
      connection: { direct: peer.direct, limited: peer.limited, transport: peer.transport },
      relay: before.relay,
      limited: before.bytes > 0 && before.milliseconds > 0,
      echoed: echoed.length,
      used: before.bytes - after.bytes,
      passed: before.milliseconds - after.milliseconds,
      over: peer.circuit === undefined,
    }
  })
}

/** More bytes than the relay allows. */
export function usesUp(relay) {
  return relayed(relay, async (peer, listening, dialing) => {
    await listening.handle('/sink/1.0.0', ({ stream }) => stream.readable.pipeTo(new WritableStream()), {
      limited: true,
    })
    const closed = event(dialing, 'connection:close', (detail) => detail.peer.id === peer.id)
    const stream = await peer.openStream('/sink/1.0.0', { limited: true })
    const writer = stream.writable.getWriter()
    // Nobody waits for these.
    writer.closed.catch(() => {})
    for (let sent = 0; sent < 512 * 1024; sent += 4096) writer.write(new Uint8Array(4096)).catch(() => {})
    return { reason: (await closed).reason.code }
  })
}

/** A relayed connection becomes a direct one by itself, and streams go over that. */
export async function upgrades(relay) {
  await using listening = await ephemeral()
  await using dialing = await ephemeral()
  await listening.handle('/echo/1.0.0', echoes)
  const address = circuitOf(await listening.listen(`${relay}/p2p-circuit`))
  const upgraded = [listening, dialing].map((node) => event(node, 'connection:upgraded'))
  const first = await dialing.dial(address)
  const [there, here] = await Promise.all(upgraded)
  const relayedOver = event(dialing, 'connection:close', ({ peer }) => !peer.direct)
  const echoed = await echo(first, 'over the direct one')
  const stream = await dialing.openStream(listening.peerId, '/echo/1.0.0')
  const { direct, limited, transport, circuit } = stream.peer
  await stream.close()
  return {
    relayed: [first.direct, here.relayed.direct, there.relayed.direct],
    direct: [here.peer.direct, there.peer.direct],
    ids: here.peer.id === listening.peerId && there.peer.id === dialing.peerId,
    echoed,
    stream: { direct, limited, transport, circuit: circuit === undefined },
    // It is idle, so it goes.
    left: (await relayedOver).peer.connectionId === first.connectionId,
    peers: dialing.peers.filter(({ id }) => id === listening.peerId).length,
  }
}

/** Known by its peer id only, a page is found through the relay that both are at. */
export async function dialsByPeerId(relay) {
  await using listening = await ephemeral()
  await using dialing = await ephemeral()
  await listening.handle('/echo/1.0.0', echoes)
  await listening.listen(`${relay}/p2p-circuit`)
  const unknown = await code(dialing.dial(listening.peerId))
  await dialing.dial(relay)
  const peer = await dialing.dial(listening.peerId)
  return { unknown, echoed: await echo(peer, 'by name') }
}

export async function notThere(relay) {
  await using gone = await ephemeral()
  await using dialing = await ephemeral()
  const addresses = await gone.listen(`${relay}/p2p-circuit`)
  await gone.close()
  const refused = []
  for (const address of [circuitOf(addresses), pageToPageOf(addresses)])
    refused.push(await code(dialing.dial(address)))
  return { refused, peers: dialing.peers.filter(({ id }) => id === gone.peerId).length }
}

export async function losesRelay(relay, kill) {
  await using node = await ephemeral()
  await node.listen(`${relay}/p2p-circuit`)
  const lost = event(node, 'relay:lost')
  const without = event(node, 'addresses:change', (addresses) => addresses.length === 0)
  await fetch(kill, { method: 'POST' })
  const { relay: id, reason, retryIn } = await lost
  await without
  return { id, reason, retries: retryIn > 0, addresses: node.addresses }
}

/** The page that others dial; it lives as long as the page. */
export async function host(relay) {
  const node = await ephemeral()
  await node.handle('/echo/1.0.0', echoes)
  return pageToPageOf(await node.listen(`${relay}/p2p-circuit`))
}

let guest

/** Dials, talks and hangs up again and again. Returns what each of these took, in milliseconds, and what went wrong. */
export async function dialsInARow(address, count) {
  guest ??= await ephemeral()
  const times = []
  const failures = []
  for (let dial = 0; dial < count; dial += 1) {
    try {
      const start = performance.now()
      const peer = await guest.dial(address)
      times.push(performance.now() - start)
      const said = `dial ${dial}`
      if (!peer.direct) throw new Error('it is not direct')
      if ((await echo(peer, said)) !== said) throw new Error('it echoed something else')
      await guest.disconnect(peer.id)
    } catch (error) {
      failures.push(`dial ${dial}: ${error.code} ${error.message}`)
    }
  }
  return { times, failures }
}

/** Bytes that stay in order and whole, and are more than any window. */
export async function carries(address, length) {
  guest ??= await ephemeral()
  const peer = await guest.dial(address)
  const stream = await peer.openStream('/echo/1.0.0')
  const block = crypto.getRandomValues(new Uint8Array(65_536))
  const file = new Blob(Array(length / block.length).fill(block))
  const sending = file.stream().pipeTo(stream.writable)
  const received = await new Response(stream.readable).arrayBuffer()
  await sending
  const digest = async (data) => String(new Uint8Array(await crypto.subtle.digest('SHA-256', data)))
  const equal = (await digest(received)) === (await digest(await file.arrayBuffer()))
  const again = await echo(peer, 'still here')
  await guest.disconnect(peer.id)
  return { length: received.byteLength, equal, again }
}
