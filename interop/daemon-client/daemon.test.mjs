// js-libp2p's client drives two daemons, one over a Unix socket and one over TCP.

import assert from 'node:assert/strict'
import { existsSync, statSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import { Request, Response } from '@libp2p/daemon-protocol'
import { multiaddr } from '@multiformats/multiaddr'
import { startDaemon } from './daemon.mjs'

const PATIENCE = 60_000
const bytes = (text) => new TextEncoder().encode(text)

let ours
let theirs

before(async () => {
  ;[ours, theirs] = await Promise.all([startDaemon(), startDaemon('/ip4/127.0.0.1/tcp/0')])
})

after(async () => {
  assert.deepEqual(await Promise.all([ours.stop(), theirs.stop()]), [0, 0])
  assert.ok(!existsSync(ours.control.slice('/unix'.length)))
})

/** A request for which the client has no method. */
async function ask(daemon, request) {
  const messages = await daemon.client.send(request)
  const response = await messages.read(Response)
  await messages.unwrap().close()
  return response
}

const identity = (daemon) => daemon.client.identify()
const peerOf = async (daemon) => (await identity(daemon)).peerId

async function connect() {
  const { peerId, addrs } = await identity(theirs)
  await ours.client.connect(peerId, addrs)
  return peerId
}

/** The stream's bytes, joined, up to its end or the length wanted. */
async function read(stream, length = Number.POSITIVE_INFINITY) {
  const chunks = []
  let received = 0
  for await (const chunk of stream) {
    chunks.push(chunk.subarray())
    received += chunk.byteLength
    if (received >= length) break
  }
  return Buffer.concat(chunks)
}

async function write(stream, data) {
  for (let at = 0; at < data.length; at += 65536) {
    if (!stream.send(data.subarray(at, at + 65536))) {
      await stream.onDrain()
    }
  }
}

/** What has come is sent back. */
async function echo(stream) {
  for await (const chunk of stream) {
    if (!stream.send(chunk)) {
      await stream.onDrain()
    }
  }
}

describe('@libp2p/daemon-client', { timeout: PATIENCE }, () => {
  it('is told who a node is and where it listens', async () => {
    for (const daemon of [ours, theirs]) {
      const { peerId, addrs } = await identity(daemon)
      assert.equal(peerId.toString(), daemon.peer)
      assert.deepEqual(
        addrs.map((address) => `${address}/p2p/${peerId}`),
        daemon.addresses.map(String),
      )
    }
    assert.equal(statSync(ours.control.slice('/unix'.length)).mode & 0o777, 0o600)
  })

  it('connects, sees the peer on both sides, and disconnects', async () => {
    const peer = await connect()
    assert.deepEqual((await ours.client.listPeers()).map(String), [peer.toString()])
    assert.deepEqual((await theirs.client.listPeers()).map(String), [(await peerOf(ours)).toString()])
    const disconnect = { type: Request.Type.DISCONNECT, disconnect: { peer: peer.toMultihash().bytes } }
    assert.equal((await ask(ours, disconnect)).type, Response.Type.OK)
    assert.deepEqual(await ours.client.listPeers(), [])
  })

  it('connects over every transport', async () => {
    for (const address of theirs.addresses) {
      const peer = await peerOf(theirs)
      await ours.client.connect(peer, [address])
      assert.equal((await ours.client.listPeers()).length, 1, `${address}`)
      await ask(ours, { type: Request.Type.DISCONNECT, disconnect: { peer: peer.toMultihash().bytes } })
    }
  })

  it('is told why there is no connection', async () => {
    const self = await peerOf(ours)
    await assert.rejects(ours.client.connect(self, [multiaddr('/ip4/127.0.0.1/tcp/1')]), /this node itself/)
    const stranger = await startDaemon()
    const peer = await peerOf(stranger)
    await stranger.stop()
    // Over TCP, where a closed port says so at once.
    await assert.rejects(ours.client.connect(peer, stranger.addresses.slice(0, 1)), /cannot be reached/)
    await assert.rejects(ours.client.openStream(peer, '/echo/1.0.0'), /cannot be reached/)
  })

  it('opens a stream to a handler of another client', async () => {
    const peer = await connect()
    let told
    await theirs.client.registerStreamHandler('/echo/1.0.0', (stream) => {
      told = stream
      return echo(stream)
    })
    const stream = await ours.client.openStream(peer, '/echo/1.0.0')
    stream.send(bytes('hello'))
    assert.equal((await read(stream, 5)).toString(), 'hello')
    assert.ok(told)
    await stream.close()
  })

  it('sends and receives several megabytes at once', async () => {
    const peer = await connect()
    await theirs.client.registerStreamHandler('/echo/2.0.0', echo)
    const stream = await ours.client.openStream(peer, '/echo/2.0.0')
    const data = Buffer.alloc(8 << 20, 'peerloom')
    const [received] = await Promise.all([read(stream, data.length), write(stream, data)])
    assert.ok(received.equals(data))
    await stream.close()
  })

  it('reads the end when the other client has closed its stream', async () => {
    const peer = await connect()
    await theirs.client.registerStreamHandler('/greeting/1.0.0', async (stream) => {
      stream.send(bytes('good bye'))
      await stream.close()
    })
    const stream = await ours.client.openStream(peer, '/greeting/1.0.0')
    assert.equal((await read(stream)).toString(), 'good bye')
  })

  it('is told that the remote does not handle a protocol', async () => {
    const peer = await connect()
    await assert.rejects(ours.client.openStream(peer, '/nobody/handles/this'), /no protocol in common/)
    await assert.rejects(ours.client.openStream(peer, 'no slash'), /starts with a slash/)
    await assert.rejects(ours.client.registerStreamHandler('/ipfs/ping/1.0.0', echo), /has a handler already/)
  })

  it('asks what is known of a peer', async () => {
    const peer = await connect()
    const known = async (type) =>
      ask(ours, {
        type: Request.Type.PEERSTORE,
        peerStore: { type, id: peer.toMultihash().bytes, protos: [] },
      })
    let protocols = []
    while (!protocols.includes('/ipfs/id/1.0.0')) {
      protocols = (await known('GET_PROTOCOLS')).peerStore.protos
    }
    const { peer: info } = (await known('GET_PEER_INFO')).peerStore
    assert.deepEqual(Buffer.from(info.id), Buffer.from(peer.toMultihash().bytes))
    const addresses = info.addrs.map((address) => multiaddr(address).toString())
    assert.ok(addresses.includes(theirs.addresses[0].toString().split('/p2p/')[0]), `${addresses}`)
  })

  it('tags peers and trims connections', async () => {
    const peer = (await connect()).toMultihash().bytes
    for (const connManager of [
      { type: 'TAG_PEER', peer, tag: 'friend', weight: 5n },
      { type: 'UNTAG_PEER', peer, tag: 'friend' },
      { type: 'TRIM' },
    ]) {
      assert.equal((await ask(ours, { type: Request.Type.CONNMANAGER, connManager })).type, Response.Type.OK)
    }
    assert.equal((await ours.client.listPeers()).length, 1)
  })

  it('is told that there is no DHT and no pubsub', async () => {
    const unavailable = /is not available in this build/
    await assert.rejects(ours.client.dht.put(bytes('key'), bytes('value')), unavailable)
    await assert.rejects(ours.client.dht.get(bytes('key')), unavailable)
    await assert.rejects(ours.client.pubsub.getTopics(), unavailable)
    await assert.rejects(ours.client.pubsub.publish('topic', bytes('data')), unavailable)
  })
})
