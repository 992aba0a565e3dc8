// What runs in the page: each export is a test, or a part of one. It returns what the test looks at.
import { Peerloom, PeerloomError } from '/src/index.js'
import { bytes, code, echo, rejection, text } from './waiting.mjs'

async function connected(address, run) {
  await using node = await Peerloom.create({ identity: 'ephemeral' })
  return await run(await node.dial(address), node)
}

export function dialedOf(addresses) {
  return connected(addresses, (peer) => ({ id: peer.id, transport: peer.transport }))
}

/** Dials by name, `server` being what resolves it; and what comes of names that lead nowhere. */
export async function dialedByName(server, name, astray) {
  await using node = await Peerloom.create({ identity: 'ephemeral', dnsOverHttps: server })
  const { id } = await node.dial(name)
  const codes = {}
  for (const [what, address] of Object.entries(astray)) codes[what] = await code(node.dial(address))
  await using without = await Peerloom.create({ identity: 'ephemeral' })
  codes.notConfigured = await code(without.dial(name))
  await using unanswered = await Peerloom.create({ identity: 'ephemeral', dnsOverHttps: '/nobody' })
  codes.noServer = await code(unanswered.dial(name))
  return { id, codes }
}

export async function identities() {
  const store = crypto.randomUUID()
  const [a, b] = await Promise.all([1, 2].map(() => Peerloom.create({ identity: { store } })))
  const ephemeral = await Peerloom.create({ identity: 'ephemeral' })
  const given = await Peerloom.create({ identity: new Uint8Array(32).fill(7) })
  const ids = [a, b, ephemeral, given].map((node) => ({ id: node.peerId, kept: node.identityKept }))
  const refused = await code(Peerloom.create({ identity: new Uint8Array(31) }))
  for (const node of [a, b, ephemeral, given]) {
    await node.close()
  }
  return { ids, refused }
}

export async function refusals() {
  const node = await Peerloom.create({ identity: 'ephemeral' })
  const somebody = '12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7'
  await node.handle('/x/1.0.0', () => {})
  const codes = {
    malformed: await code(node.dial('/ip4/nowhere')),
    tooLong: await code(node.dial('/ip4/1.2.3.4'.repeat(10_000))),
    noPeerId: await code(node.dial('somebody')),
    noAddress: await code(node.dial([])),
    transport: await code(node.dial('/ip4/127.0.0.1/tcp/1')),
    unknownPeer: await code(node.dial(somebody)),
    notConnected: await code(node.openStream(somebody, '/echo/1.0.0')),
    protocolName: await code(node.handle('no slash', () => {})),
    handledTwice: await code(node.handle('/x/1.0.0', () => {})),
    aborted: await code(Peerloom.create({ signal: AbortSignal.abort() })),
  }
  await node.close()
  await node.close()
  codes.closed = await code(node.dial('/ip4/127.0.0.1/tcp/1/ws'))
  return codes
}

export function tellsOfPeers(address) {
  return connected(address, async (first, node) => {
    const events = []
    for (const kind of ['peer:connect', 'connection:open', 'connection:close', 'peer:disconnect']) {
      node.addEventListener(kind, ({ detail }) =>
        events.push([kind, detail.id ?? detail.peer.id, detail.reason?.code]),
      )
    }
    await first.close()
    const identified = new Promise((resolve) =>
      node.addEventListener('peer:identify', (event) => resolve(event.detail)),
    )
    const peer = await node.dial(address)
    const { protocols, agentVersion } = await identified
    const found = node.peers.map(({ id, transport, direction }) => ({ id, transport, direction }))
    const roundTrip = await peer.ping()
    await node.disconnect(peer.id)
    return { events, protocols, agentVersion, found, roundTrip, left: node.peers.length }
  })
}

export function echoes(address, length) {
  return connected(address, async (peer) => {
    const block = crypto.getRandomValues(new Uint8Array(65_536))
    const file = new Blob(Array(length / block.length).fill(block))
    const stream = await peer.openStream('/echo/1.0.0')
    const sending = file.stream().pipeTo(stream.writable)
    const parts = []
    for await (const chunk of stream.readable) {
      parts.push(chunk)
    }
    await sending
    await stream.closed
    const digest = async (blob) => [
      ...new Uint8Array(await crypto.subtle.digest('SHA-256', await blob.arrayBuffer())),
    ]
    return { sent: await digest(file), received: await digest(new Blob(parts)) }
  })
}

export async function wrongPeer(address, other) {
  await using node = await Peerloom.create({ identity: 'ephemeral' })
  const error = await rejection(node.dial(address.replace(/\/p2p\/.*/, `/p2p/${other}`)))
  return { code: error.code, ours: error instanceof PeerloomError, names: error.message.includes(other) }
}

export async function abortedDial(address) {
  await using node = await Peerloom.create({ identity: 'ephemeral' })
  const controller = new AbortController()
  const dialing = rejection(node.dial(address, { signal: controller.signal }))
  const reason = new Error('changed my mind')
  controller.abort(reason)
  const error = await dialing
  const peer = await node.dial(address)
  return {
    code: error.code,
    name: error.name,
    cause: error.cause === reason,
    echo: await echo(peer, 'again'),
  }
}

export function unsupportedProtocol(address) {
  return connected(address, async (peer) => {
    const stream = await peer.openStream('/nobody/1.0.0')
    const first = await code(stream.readable.getReader().read())
    const several = await code(peer.openStream(['/nobody/1.0.0', '/nobody/2.0.0']))
    const chosen = await peer.openStream(['/nobody/1.0.0', '/echo/1.0.0'])
    await chosen.close()
    return { first, several, chosen: chosen.protocol }
  })
}

export function abortedStream(address) {
  return connected(address, async (peer) => {
    const stream = await peer.openStream('/echo/1.0.0')
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()]
    await writer.write(bytes('x'))
    await reader.read()
    const reading = code(reader.read())
    stream.abort(new Error('no longer'), 42)
    const codes = { read: await reading, write: await code(writer.write(bytes('y'))) }
    await stream.closed
    return { ...codes, echo: await echo(peer, 'still here') }
  })
}

export function cancelledReadable(address) {
  return connected(address, async (peer) => {
    const stream = await peer.openStream('/echo/1.0.0')
    const writer = stream.writable.getWriter()
    await writer.write(bytes('x'))
    await stream.readable.cancel()
    await writer.close().catch(() => {})
    await stream.closed
    return echo(peer, 'still here')
  })
}

/** How many bytes a stream takes whose other side never gets rid of them. */
export function untilFull(address) {
  return connected(address, async (peer) => {
    const stream = await peer.openStream('/echo/1.0.0')
    const writer = stream.writable.getWriter()
    const block = new Uint8Array(65_536)
    let taken = 0
    for (let full = false; !full && taken < 256 * 1024 * 1024; taken += block.length) {
      writer.write(block).catch(() => {})
      full = await Promise.race([
        writer.ready.then(() => false),
        new Promise((resolve) => setTimeout(() => resolve(true), 1000)),
      ])
    }
    const roundTrip = await peer.ping()
    stream.abort()
    return { taken, roundTrip }
  })
}

export function wrongChunks(address) {
  return connected(address, async (peer) => {
    const stream = await peer.openStream('/echo/1.0.0')
    return (await rejection(stream.writable.getWriter().write('text'))).name
  })
}

export function disposed(address) {
  return connected(address, async (peer, node) => {
    {
      await using stream = await peer.openStream('/echo/1.0.0')
      await stream.writable.getWriter().write(bytes('x'))
    }
    {
      await using again = await node.dial(address)
      await again.ping()
    }
    return node.peers.length
  })
}

export function closedConnection(address) {
  return connected(address, async (peer) => {
    const stream = await peer.openStream('/echo/1.0.0')
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()]
    await writer.write(bytes('x'))
    await reader.read()
    const reading = code(reader.read())
    await peer.close()
    return { read: await reading, open: await code(peer.openStream('/echo/1.0.0')) }
  })
}

export function lostServer(address, kill) {
  return connected(address, async (peer, node) => {
    const gone = new Promise((resolve) =>
      node.addEventListener('peer:disconnect', (event) => resolve(event.detail.peer.id)),
    )
    const stream = await peer.openStream('/echo/1.0.0')
    const reader = stream.readable.getReader()
    await stream.writable.getWriter().write(bytes('x'))
    await reader.read()
    const reading = code(reader.read())
    await fetch(kill, { method: 'POST' })
    return { read: await reading, gone: (await gone) === peer.id }
  })
}

/** Chunks that a page reads are its own to keep or to transfer. */
export function ownChunks(address) {
  return connected(address, async (peer) => {
    const stream = await peer.openStream('/echo/1.0.0')
    const writer = stream.writable.getWriter()
    const sent = bytes('mine')
    await writer.write(sent)
    const byob = stream.readable.getReader({ mode: 'byob' })
    const { value } = await byob.read(new Uint8Array(16))
    const moved = structuredClone(value, { transfer: [value.buffer] })
    stream.abort()
    return { sent: text(sent), moved: text(moved) }
  })
}
