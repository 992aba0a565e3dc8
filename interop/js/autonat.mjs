// AutoNAT v2 between ours and go-libp2p: either asks the other which of its addresses it reaches.
import assert from 'node:assert/strict'
import { test } from 'node:test'

/**
 * What is asked about, and the answer. The server sees its client at 127.0.0.1: a dial to another address has to be paid with data.
 */
const ANSWERS = {
  '/ip4/127.0.0.1/tcp/{tcp}': 'reached',
  '/ip4/127.0.0.2/tcp/{tcp}': 'reached',
  '/ip4/127.0.0.1/udp/{udp}/quic-v1': 'reached',
  '/ip4/127.0.0.2/udp/{udp}/quic-v1': 'reached',
  // Nobody listens there.
  '/ip4/127.0.0.1/tcp/1': 'not reached',
}

/** The tests of every pair of these peers. `unavailable` tells why a peer cannot take part. */
export function autonatTests(peers, unavailable) {
  for (const client of peers) {
    for (const server of peers.filter((server) => server !== client)) {
      for (const transport of ['tcp', 'quic']) {
        const missing = [client, server].find((peer) => unavailable.has(peer))
        const skip = missing && `${missing.name}: ${unavailable.get(missing)}`
        test(`${client.name} asks ${server.name} over ${transport} where it is reached (AutoNAT)`, {
          skip,
        }, async () => {
          const serving = await server.serveAutonat(transport)
          try {
            assert.deepEqual(await client.askAutonat(serving.address), ANSWERS)
          } finally {
            await serving.stop()
          }
        })
      }
    }
  }
}
