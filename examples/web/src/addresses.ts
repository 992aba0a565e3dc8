/** Which transport an address is of, which of them this browser has, and which address to dial. */

export type Transport = 'webtransport' | 'webrtc' | 'websocket'

export const TRANSPORTS: readonly Transport[] = ['webtransport', 'webrtc', 'websocket']

export const TRANSPORT_NAMES: Readonly<Record<Transport, string>> = {
  webtransport: 'WebTransport',
  webrtc: 'WebRTC',
  websocket: 'WebSocket',
}

/** The address to dial, with what is worth knowing about it, or the reason why there is none. */
export type Choice = { address: string; note?: string } | { reason: string }

/** Picks the one of the server's `addresses` that this page can dial by `transport` with the best prospects. */
export function choose(transport: Transport, addresses: readonly string[]): Choice {
  const missing = missingInBrowser(transport)
  if (missing) return { reason: missing }
  // A link-local address means nothing without the name of an interface, which a browser cannot use.
  const candidates = addresses.filter(
    (address) => transportOf(address) === transport && !isLinkLocal(address),
  )
  if (candidates.length === 0) return { reason: 'The server does not offer it.' }

  if (transport === 'webrtc' && isFirefox()) {
    const outside = candidates.filter((address) => !isLoopback(address))
    const address = nearest(outside)
    if (address === undefined) {
      return {
        reason: 'Firefox never dials WebRTC to the machine itself, and the server has no other address.',
      }
    }
    if (outside.length === candidates.length) return { address }
    return {
      address,
      note: 'Firefox never dials WebRTC to 127.0.0.1, so this is the address of a network interface.',
    }
  }
  if (transport === 'websocket' && location.protocol === 'https:') {
    const address = nearest(candidates.filter((address) => isSecure(address) || isLoopback(address)))
    return address === undefined
      ? { reason: 'A page from https may only open secure WebSockets, and the server has none.' }
      : { address }
  }
  const address = nearest(candidates)
  return address === undefined ? { reason: 'The server does not offer it.' } : { address }
}

/** The transport that dials `address`; `undefined` if it is none of a browser's. */
export function transportOf(address: string): Transport | undefined {
  const names = address.split('/')
  // A relayed connection runs over the transport of its first leg, but ends at another peer.
  if (names.includes('p2p-circuit')) return undefined
  if (names.includes('webtransport')) return 'webtransport'
  if (names.includes('webrtc-direct')) return 'webrtc'
  if (names.includes('ws') || names.includes('wss')) return 'websocket'
  return undefined
}

/** The peer at the end of an address, if it names one. */
export function peerOf(address: string): string | undefined {
  return /\/p2p\/([^/]+)$/.exec(address.trim())?.[1]
}

/** The reason why this browser cannot use `transport`, if so. */
function missingInBrowser(transport: Transport): string | undefined {
  if (transport === 'webtransport' && !('WebTransport' in globalThis)) {
    return isSecureContext
      ? 'This browser does not have it.'
      : 'Browsers offer it only on pages from https, localhost or 127.0.0.1.'
  }
  if (transport === 'webrtc' && !('RTCPeerConnection' in globalThis))
    return 'It is turned off in this browser.'
  return undefined
}

/** A page from this machine prefers loopback, one from elsewhere the host that it came from, then IPv4. */
function nearest(addresses: readonly string[]): string | undefined {
  const here = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname)
  const distance = (address: string) => {
    if (hostOf(address) === location.hostname) return 0
    const near = isLoopback(address) === here ? 1 : 3
    return address.startsWith('/ip4/') ? near : near + 1
  }
  return [...addresses].sort((one, other) => distance(one) - distance(other))[0]
}

const hostOf = (address: string) => address.split('/')[2] ?? ''

const isLoopback = (address: string) => /^\/(ip4\/127\.|ip6\/::1\/|dns[46]?\/localhost\/)/.test(address)

const isLinkLocal = (address: string) => /^\/(ip6zone\/|ip6\/fe[89ab]|ip4\/169\.254\.)/i.test(address)

const isSecure = (address: string) => /\/(wss|tls)(\/|$)/.test(address)

const isFirefox = () => navigator.userAgent.includes('Firefox/')
