// What is asserted in each row of the matrix.
import assert from 'node:assert/strict'
import { networkInterfaces } from 'node:os'
import { CIRCUIT_LIMITS, ECHO } from './contract.mjs'

const EVERYBODYS = ['/ipfs/id/1.0.0', '/ipfs/ping/1.0.0']

/** Where a listener may see a dialer of this machine. */
const OBSERVED = {
  tcp: /^\/ip4\/127\.0\.0\.1\/tcp\/[1-9]\d*(\/|$)/,
  ws: /^\/ip4\/127\.0\.0\.1\/tcp\/[1-9]\d*(\/|$)/,
  quic: /^\/ip4\/127\.0\.0\.1\/udp\/[1-9]\d*\/quic-v1(\/|$)/,
  webtransport: /^\/ip4\/127\.0\.0\.1\/udp\/[1-9]\d*\/quic-v1(\/|$)/,
  // ICE takes whichever of the dialer's addresses is answered first, and not all of them are loopback.
  'webrtc-direct': new RegExp(`^/ip4/(${ownIp4().join('|').replaceAll('.', '\\.')})/udp/[1-9]\\d*(/|$)`),
}

/** By name, what throws unless all is well. */
export const CHECKS = {
  connect({ row, listening, found }) {
    const { remote, direct } = found('connect')
    assert.equal(remote, listening.peer)
    if (row.relay) assert.equal(direct, row.transport !== 'relayed')
  },
  limits({ row, found }) {
    const { bytes, seconds: told } = found('connect').limits
    const seconds = row.relay.tellsMilliseconds ? told / 1000 : told
    // Some of it is used up by the handshake.
    assert.ok(bytes > CIRCUIT_LIMITS.bytes / 2 && bytes <= CIRCUIT_LIMITS.bytes, `${bytes} bytes`)
    assert.ok(seconds > CIRCUIT_LIMITS.seconds / 2 && seconds <= CIRCUIT_LIMITS.seconds, `${seconds} s`)
  },
  identify({ row, listening, found }) {
    const { protocols, addresses, observed, asked } = found('identify')
    for (const protocol of [...EVERYBODYS, ECHO]) assert.ok(protocols.includes(protocol), protocols)
    const address = withoutPeer(listening.address)
    assert.ok(addresses.map(withoutPeer).includes(address), `${addresses} lack ${address}`)
    if (!row.relay) assert.match(observed ?? 'nothing', OBSERVED[row.transport])
    assert.ok(asked ?? true, 'the listener did not ask who dials')
  },
  async identified({ listening, outcome }) {
    const { protocols } = await listening.heard('identified', outcome.peer)
    for (const protocol of EVERYBODYS) assert.ok(protocols.includes(protocol), protocols)
  },
  ping({ found }) {
    assert.ok(found('ping').ms >= 0)
  },
  echo({ found }) {
    assert.deepEqual(found('echo'), { equal: true, end: 'closed' })
  },
  'half-close'({ found }) {
    assert.deepEqual(found('half-close'), { equal: true, end: 'closed' })
  },
  async reset({ row, listening, outcome, found }) {
    found('reset')
    const ends = endsOfReset(row.listener, row.transport)
    await listening.heard?.('echo', outcome.peer, ({ end, bytes }) => ends.includes(end) && bytes === 1)
  },
  'remote reset'({ row, found }) {
    const { end } = found('remote reset')
    if (row.transport === 'relayed') {
      // It did not opt in to connections with limits. Who dials may know that, or the listener.
      const ends = row.dialer.knowsLimits
        ? ['limited']
        : ['unsupported', ...endsOfReset(row.dialer, 'relayed')]
      assert.ok(ends.includes(end), end)
      return
    }
    // `peerloom run` has no protocol that resets: it must refuse it, and the connection must survive that.
    const ends = reports(row) ? endsOfReset(row.dialer, row.transport) : ['unsupported']
    assert.ok(ends.includes(end), end)
  },
  'still alive'({ found }) {
    assert.ok(found('still alive').ms >= 0)
  },
  'over limit'({ row, found }) {
    const { ended } = found('over limit')
    assert.ok(ended, 'more went through the relay than it allows')
    if (row.dialer.ours) assert.match(ended, /bytes/)
  },
  'wrong peer'({ row, wrong }) {
    const { error } = wrong.checks.connect
    assert.ok(error, 'a peer id that is not the listener’s was accepted')
    assert.doesNotMatch(error, /no result after/)
    // The relay does not know whether there is such a peer, only that it never came.
    if (row.relay && row.dialer.ours) assert.match(error, /reserv/i)
  },
  'peerloom ping'({ listening, pinged }) {
    assert.equal(pinged.peer, listening.peer)
  },
}

/** The checks that are possible in a row. */
export function checksOf(row) {
  const limited = row.transport === 'relayed'
  const possible = {
    limits: limited,
    'over limit': limited,
    identified: reports(row),
    'peerloom ping': row.dialer.ping !== undefined && !row.relay,
  }
  return Object.entries(CHECKS).filter(([name]) => possible[name] ?? true)
}

/** What a foreign peer of the row is known to fail: reasons by the name of the check, or `row`. */
export function defectsOf(row) {
  const ofEach = [row.dialer, row.listener, row.relay].map((peer) => {
    const defects = Object.entries(peer?.defects?.(row) ?? {})
    return defects.map(([check, reason]) => [check, `${peer.name}: ${reason}`])
  })
  return Object.fromEntries(ofEach.flat())
}

/** The IPv4 addresses of this machine. */
function ownIp4() {
  const all = Object.values(networkInterfaces()).flat()
  return all.filter(({ family }) => family === 'IPv4').map(({ address }) => address)
}

/** `/a/b/p2p/P` as `/a/b`. */
export function withoutPeer(address) {
  return address.replace(/\/p2p\/[^/]+$/, '')
}

/** Whether the listener tells what it sees; `peerloom run` does not. */
function reports({ listener, relay }) {
  return !listener.ours || relay !== undefined
}

function endsOfReset(receiver, transport) {
  return receiver.resetsLookClosed?.includes(transport) ? ['reset', 'closed'] : ['reset']
}
