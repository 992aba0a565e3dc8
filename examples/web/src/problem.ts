/** What to do about an error. */

export interface Problem {
  /** Stable, from the SDK where the error is the SDK's. */
  code: string
  message: string
  advice: string
}

const ADVICE: Readonly<Record<string, string>> = {
  ERR_CERTIFICATE:
    'The server proved to hold another certificate than the address says. Its certificates change every two weeks: take its current address, or reload this page if the server is the demo’s.',
  ERR_CONNECTION_CLOSED: 'The server is gone, or the network between. Reconnect once it is back.',
  ERR_HANDSHAKE: 'Something answered, but not as a libp2p peer does. Check that the address is the server’s.',
  ERR_INVALID_ARGUMENT:
    'This is not a multiaddr. Take one of the lines that the server prints after “listen”.',
  ERR_NO_ADDRESSES: 'Give a full address, from /ip4, /ip6 or /dns to /p2p.',
  ERR_NOT_CONNECTED: 'The server is gone, or the network between. Reconnect once it is back.',
  ERR_NODE_CLOSED: 'This page’s node has ended. Reload the page.',
  ERR_PANIC: 'This is a bug in Peerloom. Reload the page, and please report what it says here.',
  ERR_PROTOCOL_NOT_SUPPORTED: 'This peer is no server of the demo: it does not offer what was asked of it.',
  ERR_PROTOCOL_VIOLATION:
    'The server answered what no libp2p peer may. Check that the address is the server’s.',
  ERR_SELF_DIAL: 'This is the address of this very page. Take the server’s.',
  ERR_STREAM_RESET: 'The server gave up on the stream. Try again.',
  ERR_TIMED_OUT:
    'No answer came in time. Check that the server runs and that no firewall drops what this transport sends (UDP for WebTransport and WebRTC), or try WebSocket.',
  ERR_TOO_MANY_CONNECTIONS: 'Close other connections first.',
  ERR_TOO_MANY_STREAMS: 'Wait until other transfers are over.',
  ERR_UNREACHABLE:
    'Check that the server runs and listens at this address, and that the certificate hash in it is today’s. Reloading the page brings the demo server’s current addresses.',
  ERR_UNSUPPORTED_ADDRESS:
    'Browsers dial WebTransport, WebRTC and WebSocket: choose an address of one of these.',
  ERR_WASM_LOAD: 'The Wasm core did not arrive. Reload the page.',
  ERR_WRONG_PEER:
    'Another peer answered than the one that the address names. Check the peer id at its end, and that you trust where you have it from.',
  SERVER_SILENT: 'The server is gone, or the network between. Reconnect once it is back.',
  NotReadableError: 'The file cannot be read. It may have changed since it was chosen: choose it again.',
  NotFoundError: 'The file is no longer where it was: choose it again.',
}

export function problemOf(error: unknown): Problem {
  const { code, name, message } = error as { code?: unknown; name?: string; message?: string }
  // DOMExceptions have a number for a code, and a name that says more.
  const key = typeof code === 'string' ? code : (name ?? 'Error')
  return {
    code: key,
    message: message ?? String(error),
    advice: ADVICE[key] ?? 'Try again. If it stays, the browser’s console may say more.',
  }
}
