/** What went wrong, for programs. Codes are never renamed; new ones may come. */
export type PeerloomErrorCode =
  /** The caller's `AbortSignal` aborted the call; `cause` is its reason. */
  | 'ERR_ABORTED'
  /** Not a multiaddr, peer id, protocol name or identity. */
  | 'ERR_INVALID_ARGUMENT'
  /** This browser, or this page, cannot dial such an address. */
  | 'ERR_UNSUPPORTED_ADDRESS'
  /** No address of the peer is known. */
  | 'ERR_NO_ADDRESSES'
  /** Nobody answered, or the browser does not say why nobody did. */
  | 'ERR_UNREACHABLE'
  /** Another peer answered than the one dialed. */
  | 'ERR_WRONG_PEER'
  /** The peer does not know the certificates that the address names. */
  | 'ERR_CERTIFICATE'
  /** The peer answered, but did not prove who it is. */
  | 'ERR_HANDSHAKE'
  /** It took too long, or the peer went silent. */
  | 'ERR_TIMED_OUT'
  /** The address or peer is this node itself. */
  | 'ERR_SELF_DIAL'
  /** The node's rules or its connection gate do not let this pass. */
  | 'ERR_DENIED'
  /** A limit on connections is reached: of this node, or of the peer. */
  | 'ERR_TOO_MANY_CONNECTIONS'
  /** As many peers are kept as can be. */
  | 'ERR_TOO_MANY_PEERS'
  /** A limit on streams is reached: of this node, of the peer, or of the protocol. */
  | 'ERR_TOO_MANY_STREAMS'
  /** There is no connection to the peer. */
  | 'ERR_NOT_CONNECTED'
  /** The connection is over. */
  | 'ERR_CONNECTION_CLOSED'
  /** One side closed the connection because nobody needed it, or to make room for others. */
  | 'ERR_CONNECTION_TRIMMED'
  /** A relay limits the only connection to the peer, and the call does not have `limited: true`. */
  | 'ERR_LIMITED_CONNECTION'
  /** The bytes or the time that a relay gave the connection are used up. */
  | 'ERR_CIRCUIT_ENDED'
  /** The node cannot be reached at this address: the relay refused, for example. */
  | 'ERR_LISTEN'
  /** The peer does not handle the protocol. */
  | 'ERR_PROTOCOL_NOT_SUPPORTED'
  /** The peer did not keep to a protocol. */
  | 'ERR_PROTOCOL_VIOLATION'
  /** Either side gave the stream up, or the peer reads no more of it; `streamErrorCode` may say more. */
  | 'ERR_STREAM_RESET'
  /** This side has closed the stream for writing. */
  | 'ERR_STREAM_CLOSED'
  /** The protocol has a handler already. */
  | 'ERR_ALREADY_HANDLED'
  /** A limit on protocols is reached. */
  | 'ERR_TOO_MANY_PROTOCOLS'
  /** The node is closed. */
  | 'ERR_NODE_CLOSED'
  /** The Wasm core could not be loaded. */
  | 'ERR_WASM_LOAD'
  /** A bug in the Wasm core, which has stopped. Reload the page; please report it. */
  | 'ERR_PANIC'

/** Every error of this package. */
export class PeerloomError extends Error {
  readonly code: PeerloomErrorCode
  /** The number that a peer gave as the reason of a reset; 0 if it gave none. */
  readonly streamErrorCode: number

  constructor(
    code: PeerloomErrorCode,
    message: string,
    options: { cause?: unknown; streamErrorCode?: number } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    // What code that knows nothing of us looks at after an abort.
    this.name = code === 'ERR_ABORTED' ? 'AbortError' : 'PeerloomError'
    this.code = code
    this.streamErrorCode = options.streamErrorCode ?? 0
  }
}

/** The core's errors are plain ones with a code; the browser's own streams fail with `WebTransportError`s. */
export function toPeerloomError(error: unknown): PeerloomError {
  if (error instanceof PeerloomError) {
    return error
  }
  const { code, message, cause, streamErrorCode, source } = (error ?? {}) as Partial<PeerloomError> & {
    source?: unknown
  }
  if (typeof code === 'string') {
    return new PeerloomError(code, message ?? code, {
      ...(cause === undefined ? {} : { cause }),
      streamErrorCode: streamErrorCode ?? 0,
    })
  }
  if (source === 'stream') {
    return new PeerloomError('ERR_STREAM_RESET', `stream was reset (code ${streamErrorCode ?? 0})`, {
      cause: error,
      streamErrorCode: streamErrorCode ?? 0,
    })
  }
  return new PeerloomError('ERR_CONNECTION_CLOSED', message || 'the connection is over', { cause: error })
}

/** The error for a signal that has aborted. */
export function abortError(signal: AbortSignal): PeerloomError {
  const reason: unknown = signal.reason
  return new PeerloomError('ERR_ABORTED', reason instanceof Error ? reason.message : 'aborted', {
    cause: reason,
  })
}
