import { type CoreConnection, type CoreEvent, WasmNode, type WasmStream } from '../generated/peerloom_wasm.js'
import { call, callNow, loadCore, onBug, type WasmSource } from './core.js'
import { asyncDispose } from './dispose.js'
import { resolveDnsaddr } from './dnsaddr.js'
import { abortError, PeerloomError, toPeerloomError } from './error.js'
import type { PeerIdentity, PeerloomEventMap, TypedEventTarget } from './events.js'
import { type ConnectionGate, gatekeeper } from './gate.js'
import { type IdentityOption, loadIdentity } from './identity.js'
import { type CircuitLimit, Peer } from './peer.js'
import { openPeerStorage, type PeerStorage, type PeerStoreOption, peerStoreOf } from './peer_storage.js'
import { PeerloomStream } from './stream.js'
import { onWake } from './wake.js'

/** How a node is made. */
export interface PeerloomOptions {
  /** Who the node is. By default an identity that is made once and kept in IndexedDB, for all pages of the origin. */
  identity?: IdentityOption
  /**
   * Whether what is learnt of peers is there the next time, so that a peer is found again by its id. By default it is if the identity
   * is kept, under the same name.
   */
  peerStore?: PeerStoreOption
  /** What to call itself to other peers. */
  agentVersion?: string
  /**
   * STUN servers (`stun:stun.example.org:3478`) that tell pages behind a NAT what they look like from outside, so that two of
   * them can connect directly. None by default: such a server learns who asks, and which one to trust is yours to say.
   */
  iceServers?: readonly string[]
  /**
   * The server that is asked for `/dnsaddr/…` addresses, by DNS over HTTPS: `https://dns.example.org/dns-query`. None by default,
   * and then such addresses cannot be dialed. Names in other addresses are resolved by the browser.
   */
  dnsOverHttps?: string
  /** Who may connect, asked at each step. {@link Peerloom.deny} is for what needs no thought. */
  connectionGate?: ConnectionGate
  /** Where the Wasm core is, if your server or bundler has it elsewhere than beside the JavaScript. */
  wasm?: WasmSource | Promise<WasmSource>
  signal?: AbortSignal
}

/** Options of every call that waits. */
export interface CallOptions {
  signal?: AbortSignal
}

/** Options of {@link Peerloom.openStream}. */
export interface OpenStreamOptions extends CallOptions {
  /** Whether a connection that a relay limits will do. Streams on it should be short: see {@link Peer.circuit}. */
  limited?: boolean
}

/** Options of {@link Peerloom.handle}. */
export interface HandleOptions {
  /** Whether streams may come over connections that a relay limits. */
  limited?: boolean
  /** Takes the handler away when it aborts. */
  signal?: AbortSignal
}

/** Called with each stream that a peer opens. When it throws, the stream is reset and the node has an `error` event. */
export type StreamHandler = (incoming: { stream: PeerloomStream; peer: Peer }) => void | Promise<void>

// The interface gives addEventListener its types; the class is the browser's own.
const EventTargetBase = EventTarget as new () => TypedEventTarget<PeerloomEventMap> &
  Pick<EventTarget, 'dispatchEvent'>

/** A libp2p peer in this page. */
export class Peerloom extends EventTargetBase {
  /** Whether the identity will be the same the next time. */
  readonly identityKept: boolean
  /** Whether what is learnt of peers will be there the next time. */
  readonly peersKept: boolean
  readonly #core: WasmNode
  readonly #dnsOverHttps: string | undefined
  readonly #peerStorage: PeerStorage | undefined
  readonly #peerId: string
  readonly #peers = new Map<number, Peer>()
  /** By connection, what to do when it is over. */
  readonly #releases = new Map<number, Set<() => void>>()
  readonly #forgetBugListener: () => void
  readonly #forgetWakeListener: () => void
  #closed = false

  /** Starts a node. It connects to nobody by itself. */
  static async create(options: PeerloomOptions = {}): Promise<Peerloom> {
    const identity = options.identity ?? { store: 'default' }
    const storing = openPeerStorage(options.peerStore ?? peerStoreOf(identity))
    const starting = Promise.all([loadIdentity(identity), storing, loadCore(options.wasm)])
    try {
      const [{ seed, kept }, storage] = await orAborted(starting, options.signal)
      return new Peerloom(seed, kept, storage, options)
    } catch (error) {
      void storing.then((storage) => storage?.close())
      throw error
    }
  }

  private constructor(
    seed: Uint8Array,
    kept: boolean,
    storage: PeerStorage | undefined,
    options: PeerloomOptions,
  ) {
    super()
    this.identityKept = kept
    this.peersKept = storage !== undefined
    this.#peerStorage = storage
    this.#dnsOverHttps = options.dnsOverHttps
    const onEvent = (event: CoreEvent) => this.#onEvent(event)
    const { agentVersion, iceServers = [], connectionGate } = options
    const gate = connectionGate && gatekeeper(connectionGate, (error) => this.#emit('error', error))
    this.#core = callNow(
      () =>
        new WasmNode(seed, agentVersion, [...iceServers], storage, onEvent, gate, connectionGate?.timeout),
    )
    this.#peerId = this.#core.peerId
    this.#forgetBugListener = onBug((error) => this.#emit('error', error))
    this.#forgetWakeListener = onWake(() => callNow(() => this.#core.resumed()))
    // Says goodbye when the page goes for good: Firefox does not for a page with WebTransport. Workers have no such event.
    globalThis.addEventListener?.('pagehide', this.#leave)
  }

  readonly #leave = (event: Event): void => {
    if (!(event as PageTransitionEvent).persisted) {
      void this.close().catch(() => {})
    }
  }

  /** Who this node is, as other peers see it. */
  get peerId(): string {
    return this.#peerId
  }

  /** The peers that this node is connected to, once for each connection. */
  get peers(): Peer[] {
    return [...this.#peers.values()]
  }

  /** The addresses at which others reach this node, best first. Empty unless it listens. */
  get addresses(): string[] {
    return this.#closed ? [] : callNow(() => this.#core.addresses())
  }

  /**
   * Makes the node reachable. A page is reached through a relay: `address` is that of a relay with `/p2p-circuit` at its end.
   * The place there is kept from then on; `relay:reserved` and `relay:lost` tell how that goes.
   *
   * Resolves to the addresses to give to others.
   */
  async listen(address: string, options: CallOptions = {}): Promise<string[]> {
    this.#assertOpen()
    return call(() => this.#core.listen(address, options.signal))
  }

  /**
   * Connects to a multiaddr, or to a peer id: at the addresses that are known of it, else through the relays that this node
   * is connected to. Of several multiaddrs of one peer, all that a server prints for example, those that cannot work in this
   * browser are left out, and the best that answers is taken.
   *
   * A peer behind a relay is connected to directly wherever that can be: see {@link Peer.direct}.
   */
  async dial(target: string | readonly string[], options: CallOptions = {}): Promise<Peer> {
    const targets = await this.#resolved(target, options.signal)
    return this.#peer(await call(() => this.#core.dial(targets, options.signal)))
  }

  /**
   * Keeps a connection to a peer from now on, given as for {@link dial}: addresses that end in `/p2p/…`, or a peer id, or a
   * {@link Peer}. Resolves to its peer id, without waiting for the connection.
   *
   * Whenever there is none, the peer is dialed: at once, then at intervals that grow from a second to two minutes, and at once when
   * the network comes back, or the page after it was hidden, frozen or asleep. `peer:lost` tells of each loss and each attempt that
   * failed, `peer:connect` when the peer is there again. Streams do not outlive a connection; they are yours to open again.
   */
  async keep(target: string | readonly string[] | Peer, options: CallOptions = {}): Promise<string> {
    const targets = await this.#resolved(target instanceof Peer ? target.id : target, options.signal)
    return callNow(() => this.#core.keep(targets))
  }

  /** Keeps a peer no longer. A connection to it stays for now; {@link disconnect} ends both. Whether it was kept. */
  unkeep(peer: string | Peer): boolean {
    return callNow(() => this.#core.unkeep(target(peer).id))
  }

  /** The peer ids of those that are kept, connected or not. */
  get kept(): string[] {
    return this.#closed ? [] : callNow(() => this.#core.kept())
  }

  /**
   * Opens a stream for the first of `protocols` that the peer handles.
   *
   * With one protocol this costs no round trip: if the peer does not handle it, the first read fails with
   * `ERR_PROTOCOL_NOT_SUPPORTED`.
   */
  async openStream(
    peer: string | Peer,
    protocols: string | readonly string[],
    options: OpenStreamOptions = {},
  ): Promise<PeerloomStream> {
    this.#assertOpen()
    const { id, connection } = streamTarget(peer)
    const names = typeof protocols === 'string' ? [protocols] : [...protocols]
    const opened = await call(() =>
      this.#core.openStream(id, connection, names, options.limited ?? false, options.signal),
    )
    return new PeerloomStream(opened.stream, this.#peer(opened.connection))
  }

  /** Has `handler` called for every stream that a peer opens for `protocol`. */
  async handle(protocol: string, handler: StreamHandler, options: HandleOptions = {}): Promise<void> {
    this.#assertOpen()
    if (options.signal?.aborted) {
      throw abortError(options.signal)
    }
    callNow(() =>
      this.#core.handle(
        protocol,
        options.limited ?? false,
        (stream: WasmStream, connection: CoreConnection) => this.#incoming(stream, connection, handler),
      ),
    )
    options.signal?.addEventListener('abort', () => void this.unhandle(protocol).catch(() => {}), {
      once: true,
    })
  }

  /** Takes the handler of `protocol` away. Streams that are open stay so. */
  async unhandle(protocol: string): Promise<boolean> {
    return callNow(() => this.#core.unhandle(protocol))
  }

  /** The relay on the way to a peer, and what it lets the connection still carry. `undefined` if there is none. */
  circuit(peer: Peer): CircuitLimit | undefined {
    return this.#closed ? undefined : callNow(() => this.#core.circuit(peer.connectionId))
  }

  /** The round-trip time to a peer, in milliseconds. */
  ping(peer: string | Peer, options: CallOptions = {}): Promise<number> {
    const { id, connection } = target(peer)
    return call(() => this.#core.ping(id, connection, options.signal))
  }

  /** What is known of a peer. */
  details(peer: string | Peer): PeerIdentity {
    const { id } = target(peer)
    return { id, ...callNow(() => this.#core.peerDetails(id)) }
  }

  /** Adds an address at which a peer may be reached, for a dial by its peer id. */
  addAddress(peer: string | Peer, address: string): void {
    callNow(() => this.#core.addAddress(target(peer).id, address))
  }

  /** What {@link setMetadata} has attached to a peer under this name. */
  metadata(peer: string | Peer, name: string): Uint8Array | undefined {
    return callNow(() => this.#core.metadata(target(peer).id, name))
  }

  /**
   * Attaches bytes of yours to a peer, or takes them away: at most 1,024 under a name of at most 64, and 16 names for each peer. They
   * are kept with the rest that is known of it: see {@link PeerloomOptions.peerStore}.
   */
  setMetadata(peer: string | Peer, name: string, value: Uint8Array | undefined): void {
    callNow(() => this.#core.setMetadata(target(peer).id, name, value))
  }

  /** Forgets what is known of a peer, in storage too. */
  forget(peer: string | Peer): void {
    callNow(() => this.#core.forget(target(peer).id))
  }

  /**
   * Lets nothing pass any more that `rule` fits: a peer id, an IP address, a network (`192.0.2.0/24`), the beginning of a
   * multiaddr, or `*` for every peer. Of several rules that fit, the most specific one decides. Connections that it fits are
   * closed, unless `close` is `false`.
   */
  async deny(rule: string, options: CallOptions & { close?: boolean } = {}): Promise<void> {
    this.#assertOpen()
    callNow(() => this.#core.rule(rule, false))
    if (options.close ?? true) {
      await orAborted(
        call(() => this.#core.closeDenied()),
        options.signal,
      )
    }
  }

  /** Takes a {@link deny} of the same rule back, or makes an exception from a wider one. */
  allow(rule: string): void {
    this.#assertOpen()
    callNow(() => this.#core.rule(rule, true))
  }

  /**
   * Closes the connections to a peer, or the one that a {@link Peer} stands for, in an orderly way. A peer named by its peer id is
   * kept no longer.
   */
  disconnect(peer: string | Peer, options: CallOptions = {}): Promise<void> {
    const { id, connection } = target(peer)
    return orAborted(
      call(() => this.#core.disconnect(id, connection)),
      options.signal,
    )
  }

  /** Ends the node: every peer is told goodbye, and nothing is left behind. */
  async close(options: CallOptions = {}): Promise<void> {
    if (this.#closed) {
      return
    }
    this.#closed = true
    this.#forgetBugListener()
    this.#forgetWakeListener()
    globalThis.removeEventListener?.('pagehide', this.#leave)
    const closing = call(() => this.#core.close()).finally(() => this.#peerStorage?.close())
    await orAborted(closing, options.signal)
  }

  [asyncDispose](): Promise<void> {
    return this.close()
  }

  async #resolved(target: string | readonly string[], signal: AbortSignal | undefined): Promise<string[]> {
    this.#assertOpen()
    const given = typeof target === 'string' ? [target] : [...target]
    const names = this.#dnsOverHttps
    const resolved = names === undefined ? given : await resolveDnsaddr(names, given, signal)
    this.#assertOpen()
    return resolved
  }

  #assertOpen(): void {
    if (this.#closed) {
      throw new PeerloomError('ERR_NODE_CLOSED', 'the node is closed')
    }
  }

  #peer(connection: CoreConnection): Peer {
    return this.#peers.get(connection.id) ?? new Peer(this, connection)
  }

  /** The core counts the stream as open until the promise settles. */
  async #incoming(core: WasmStream, connection: CoreConnection, handler: StreamHandler): Promise<void> {
    const stream = new PeerloomStream(core, this.#peer(connection))
    void this.#run(handler, stream)
    const releases = this.#releases.get(connection.id)
    let release: (() => void) | undefined
    // The end of the connection counts too: nobody may ever read the stream again and notice.
    const connectionOver = new Promise<void>((resolve) => {
      release = resolve
      releases?.add(resolve)
    })
    await Promise.race([stream.closed, connectionOver])
    if (release) {
      releases?.delete(release)
    }
  }

  async #run(handler: StreamHandler, stream: PeerloomStream): Promise<void> {
    try {
      await handler({ stream, peer: stream.peer })
    } catch (error) {
      stream.abort(error)
      this.#emit('error', error)
    }
  }

  #onEvent(event: CoreEvent): void {
    switch (event.kind) {
      case 'connection:open':
        this.#opened(event.connection, event.first)
        break
      case 'connection:close':
        this.#over(this.#peer(event.connection), toPeerloomError(event.reason), event.last)
        break
      case 'connection:upgraded':
        this.#emit('connection:upgraded', {
          peer: this.#peer(event.connection),
          relayed: this.#peer(event.relayed),
        })
        break
      case 'peer:lost': {
        const { peer: id, reason, retryIn } = event
        this.#emit('peer:lost', { id, reason: toPeerloomError(reason), retryIn })
        break
      }
      case 'relay:reserved': {
        const { relay, addresses, renewed, expiresIn } = event
        this.#emit('relay:reserved', { relay, addresses, renewed, expires: new Date(Date.now() + expiresIn) })
        break
      }
      case 'relay:lost': {
        const { relay, reason, retryIn } = event
        this.#emit('relay:lost', { relay, reason, retryIn })
        break
      }
      case 'connection:denied': {
        const { peer, address, reason } = event
        this.#emit('connection:denied', { peer, address, reason: toPeerloomError(reason) })
        break
      }
      case 'addresses:change':
        this.#emit('addresses:change', event.addresses)
        break
      case 'peer:identify':
        this.#emit('peer:identify', this.details(event.peer))
        break
      case 'peer:protocols': {
        const { peer: id, added, removed } = event
        this.#emit('peer:protocols', { id, added, removed })
        break
      }
      case 'lagged':
        this.#catchUp(event.connections)
        break
    }
  }

  /** So many events came at once that some are lost: tells what has become of connections in the meantime. */
  #catchUp(connections: CoreConnection[]): void {
    const open = new Set(connections.map(({ id }) => id))
    for (const peer of this.peers.filter(({ connectionId }) => !open.has(connectionId))) {
      const last = !this.peers.some((other) => other !== peer && other.id === peer.id)
      const reason = new PeerloomError('ERR_CONNECTION_CLOSED', 'the connection is over')
      this.#over(peer, reason, last)
    }
    for (const connection of connections.filter(({ id }) => !this.#peers.has(id))) {
      this.#opened(connection, !this.peers.some(({ id }) => id === connection.peer))
    }
    this.#emit('addresses:change', this.addresses)
  }

  #opened(connection: CoreConnection, first: boolean): void {
    const peer = new Peer(this, connection)
    this.#peers.set(connection.id, peer)
    this.#releases.set(connection.id, new Set())
    this.#emit('connection:open', peer)
    if (first) {
      this.#emit('peer:connect', peer)
    }
  }

  #over(peer: Peer, reason: PeerloomError, last: boolean): void {
    const id = peer.connectionId
    this.#peers.delete(id)
    for (const release of this.#releases.get(id) ?? []) {
      release()
    }
    this.#releases.delete(id)
    this.#emit('connection:close', { peer, reason })
    if (last) {
      this.#emit('peer:disconnect', { peer, reason })
    }
  }

  #emit<K extends keyof PeerloomEventMap & string>(type: K, detail: PeerloomEventMap[K]['detail']): void {
    this.dispatchEvent(new CustomEvent(type, { detail }))
  }
}

function target(peer: string | Peer): { id: string; connection: number | undefined } {
  return typeof peer === 'string'
    ? { id: peer, connection: undefined }
    : { id: peer.id, connection: peer.connectionId }
}

/** Where a stream to `peer` goes. A relayed connection is only the way to begin with. */
function streamTarget(peer: string | Peer): { id: string; connection: number | undefined } {
  return typeof peer !== 'string' && !peer.direct ? target(peer.id) : target(peer)
}

/** Waits for `work` no longer than until `signal` aborts; the work itself goes on. */
function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) {
    return work
  }
  return new Promise((resolve, reject) => {
    const aborted = () => reject(abortError(signal))
    if (signal.aborted) {
      aborted()
    }
    signal.addEventListener('abort', aborted)
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted))
  })
}
