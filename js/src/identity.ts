import { PeerloomError } from './error.js'
import { done } from './indexed_db.js'

/**
 * Who the node is: `{ store }` keeps an identity under that name in IndexedDB and uses it again, `'ephemeral'` makes a new
 * one each time, 32 bytes are the seed of one that you keep yourself.
 */
export type IdentityOption = { store: string } | 'ephemeral' | Uint8Array

const DATABASE = 'peerloom'
const TABLE = 'identities'
const SEED_BYTES = 32

/** The seed to use, and whether it will be there the next time. */
export async function loadIdentity(option: IdentityOption): Promise<{ seed: Uint8Array; kept: boolean }> {
  if (option instanceof Uint8Array) {
    if (option.length !== SEED_BYTES) {
      throw new PeerloomError(
        'ERR_INVALID_ARGUMENT',
        `an identity has ${SEED_BYTES} bytes, not ${option.length}`,
      )
    }
    return { seed: option, kept: true }
  }
  const fresh = crypto.getRandomValues(new Uint8Array(SEED_BYTES))
  if (option === 'ephemeral') {
    return { seed: fresh, kept: false }
  }
  try {
    return { seed: await findOrKeep(option.store, fresh), kept: true }
  } catch (error) {
    // Private windows and blocked storage must not keep anybody from connecting.
    console.warn('peerloom: the identity cannot be kept, so this page has a new one each time', error)
    return { seed: fresh, kept: false }
  }
}

/** One transaction finds or keeps, so that of two tabs that start together both have the same identity. */
async function findOrKeep(name: string, fresh: Uint8Array): Promise<Uint8Array> {
  const opening = indexedDB.open(DATABASE, 1)
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore(TABLE)
  }
  const database = await done(opening)
  try {
    const table = database.transaction(TABLE, 'readwrite').objectStore(TABLE)
    const found: unknown = await done(table.get(name))
    if (found instanceof Uint8Array && found.length === SEED_BYTES) {
      return found
    }
    await done(table.put(fresh, name))
    return fresh
  } finally {
    database.close()
  }
}
