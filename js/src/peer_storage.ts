import type { CorePeerChange, CorePeerStorage, CoreStoredPeer } from '../generated/peerloom_wasm.js'
import type { IdentityOption } from './identity.js'
import { completed, done } from './indexed_db.js'

/**
 * What becomes of what the node learns of peers, their addresses before all: `{ store }` keeps it under that name in IndexedDB, for all
 * pages of the origin, `'memory'` for as long as the node is there.
 */
export type PeerStoreOption = 'memory' | { store: string }

const DATABASE_PREFIX = 'peerloom-peers/'
const TABLE = 'peers'
/** No more are read. What is beyond, because several pages have each written theirs, is removed. */
const MAX_PEERS = 4096
/** A browser that takes longer to open a database must not keep anybody from connecting. */
const OPENING_MS = 3000

/** The option's default: peers are kept where the identity is. */
export function peerStoreOf(identity: IdentityOption): PeerStoreOption {
  return typeof identity === 'object' && 'store' in identity ? { store: identity.store } : 'memory'
}

/** Opens the storage and reads it. Where there is none, that of private windows for example, it is `undefined`. */
export async function openPeerStorage(option: PeerStoreOption): Promise<PeerStorage | undefined> {
  if (option === 'memory') {
    return undefined
  }
  const opening = PeerStorage.open(DATABASE_PREFIX + option.store)
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('IndexedDB does not answer')), OPENING_MS)
  })
  try {
    return await Promise.race([opening, late])
  } catch (error) {
    opening.then(
      (storage) => storage.close(),
      () => {},
    )
    console.warn('peerloom: what this page learns of peers cannot be kept', error)
    return undefined
  } finally {
    clearTimeout(timer)
  }
}

/** Peers in a database, which other pages of the origin may use at the same time: the last to write of a peer is right. */
export class PeerStorage implements CorePeerStorage {
  readonly peers: CoreStoredPeer[]
  readonly #name: string
  #database: IDBDatabase | undefined
  #closed = false

  static async open(name: string): Promise<PeerStorage> {
    const database = await openDatabase(name)
    try {
      return new PeerStorage(name, database, await readPeers(database))
    } catch (error) {
      database.close()
      throw error
    }
  }

  private constructor(name: string, database: IDBDatabase, peers: CoreStoredPeer[]) {
    this.#name = name
    this.peers = peers
    this.#keep(database)
  }

  /** Makes these changes, all or none. The core calls it without `this`. */
  readonly write = async (changes: CorePeerChange[]): Promise<void> => {
    // Nothing is awaited if it need not be: a page that is going away gets no further than this.
    let database = this.#database
    if (database === undefined) {
      if (this.#closed) {
        throw new Error('the storage is closed')
      }
      database = this.#keep(await openDatabase(this.#name))
    }
    const transaction = database.transaction(TABLE, 'readwrite', { durability: 'relaxed' })
    const table = transaction.objectStore(TABLE)
    for (const { peer, record, stamp } of changes) {
      if (record) {
        table.put({ peer, record, stamp })
      } else if (stamp === undefined) {
        table.delete(peer)
      } else {
        const found = table.get(peer)
        found.onsuccess = () => {
          // Unless another page has written of the peer since.
          if ((found.result as { stamp?: unknown } | undefined)?.stamp === stamp) {
            table.delete(peer)
          }
        }
      }
    }
    await completed(transaction)
  }

  close(): void {
    this.#closed = true
    this.#database?.close()
    this.#database = undefined
  }

  #keep(database: IDBDatabase): IDBDatabase {
    const lose = () => {
      database.close()
      if (this.#database === database) {
        this.#database = undefined
      }
    }
    // Whoever deletes the database, the user or another page, must not have to wait for this one.
    database.onversionchange = lose
    database.onclose = lose
    if (this.#closed) {
      database.close()
    } else {
      this.#database = database
    }
    return database
  }
}

function openDatabase(name: string): Promise<IDBDatabase> {
  const opening = indexedDB.open(name, 1)
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore(TABLE, { keyPath: 'peer' })
  }
  return done(opening)
}

async function readPeers(database: IDBDatabase): Promise<CoreStoredPeer[]> {
  const table = database.transaction(TABLE, 'readwrite').objectStore(TABLE)
  const found: unknown[] = await done(table.getAll(undefined, MAX_PEERS))
  const peers = found.filter(isStoredPeer)
  const last = peers.at(-1)
  if (found.length === MAX_PEERS && last) {
    await done(table.delete(IDBKeyRange.lowerBound(last.peer, true)))
  }
  return peers
}

function isStoredPeer(found: unknown): found is CoreStoredPeer {
  const { peer, record } = (found ?? {}) as Partial<CoreStoredPeer>
  return typeof peer === 'string' && record instanceof Uint8Array
}
