// Who dials whom, over which transport, and through which relay.
import { PROTECTIONS } from './peers.mjs'

/** What a connection through a relay is in the end: relayed for good, or direct once both have agreed on it. */
const PATHS = ['relayed', 'webrtc']

/** Every row; `controls` are those without ours. */
export function rowsOf(peers, { controls, filter }) {
  const rows = [...direct(peers), ...throughRelays(peers)]
  const wanted = ({ dialer, relay, listener }) => {
    const players = [dialer, relay, listener].filter((peer) => peer !== undefined)
    const ours = players.filter((peer) => peer.ours).length
    return controls ? ours === 0 : ours > 0 && ours < players.length
  }
  return rows.filter(wanted).filter(({ name }) => name.includes(filter))
}

function direct(peers) {
  return pairs(peers).flatMap(([dialer, listener]) => {
    const transports = dialer.dials.filter((transport) => listener.listens.includes(transport))
    const both = (protection) => [dialer, listener].every((peer) => peer.protections?.includes(protection))
    const protections = transports.includes('tcp') ? PROTECTIONS.filter(both) : []
    const rows = [
      ...transports.map((transport) => ({ transport, over: transport })),
      ...protections.map((protection) => ({ transport: 'tcp', protection, over: `tcp with ${protection}` })),
    ]
    return rows.map(({ over, ...row }) => ({
      ...row,
      name: `${dialer.name} → ${listener.name} over ${over}`,
      dialer,
      listener,
      results: {},
    }))
  })
}

function throughRelays(peers) {
  const relays = peers.filter((peer) => peer.relay !== undefined)
  const rows = relays.flatMap((relay) =>
    pairs(peers).flatMap(([dialer, listener]) => {
      const paths = PATHS.filter((path) => dialer.reaches.includes(path) && listener.reserves.includes(path))
      return paths.map((transport) => ({
        name: `${dialer.name} → ${listener.name} over ${transport} through ${relay.name}`,
        dialer,
        listener,
        relay,
        transport,
        // What pages and programs can both dial.
        relayTransport: dialer.page || listener.page ? 'ws' : 'tcp',
        results: {},
      }))
    }),
  )
  return rows.filter(({ dialer, listener, relay, transport }) => {
    const ours = [dialer, listener].filter((peer) => peer.ours).length
    // Everybody through ours; ours through everybody's, and foreign ones among themselves as a control.
    const tells = relay.ours || ours === 2 || ours === 0
    // A page and a program meet over WebRTC. Our pages always do: theirs need not.
    const meet =
      transport === 'webrtc' ||
      (Boolean(dialer.page) === Boolean(listener.page) && !(dialer.page && ours === 2))
    return tells && meet
  })
}

function pairs(peers) {
  return peers.flatMap((dialer) => peers.map((listener) => [dialer, listener]))
}
