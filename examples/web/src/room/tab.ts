/** Who this tab is: the same peer after a reload, and another one than every other tab. */
import { toHex } from '../format.ts'

const KEY = 'peerloom-room-tab'
const SEED_BYTES = 32
/** A document that is being replaced by a reload may hold its lock a moment longer. */
const LOCK_PATIENCE_MS = 1_000

export interface Tab {
  /** Names what belongs to the tab; tells nothing of the seed. */
  readonly name: string
  readonly seed: Uint8Array
}

/** The tab's identity from before a reload, or a new one. */
export async function openTab(): Promise<Tab> {
  const kept = read()
  // Browsers copy sessionStorage into a tab that is duplicated or opened by a script: whoever comes second is somebody else.
  if (kept && (await hold(kept.name))) return kept
  const fresh = {
    name: toHex(crypto.getRandomValues(new Uint8Array(8))),
    seed: crypto.getRandomValues(new Uint8Array(SEED_BYTES)),
  }
  await hold(fresh.name)
  write(fresh)
  return fresh
}

/** The names of all tabs that are open. */
export async function openTabs(): Promise<string[]> {
  const { held } = await navigator.locks.query()
  return (held ?? []).flatMap(({ name }) => (name?.startsWith(LOCK) ? [name.slice(LOCK.length)] : []))
}

const LOCK = `${KEY}-`

/** Holds the tab's name for as long as the document lives. `false` if another one does. */
function hold(name: string): Promise<boolean> {
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(LOCK_PATIENCE_MS)
    const held = () => {
      resolve(true)
      return new Promise<never>(() => {})
    }
    navigator.locks.request(LOCK + name, { signal }, held).catch(() => resolve(false))
  })
}

function read(): Tab | undefined {
  try {
    const [name, seed] = (sessionStorage.getItem(KEY) ?? '').split(' ')
    if (!name || seed?.length !== SEED_BYTES * 2) return undefined
    return { name, seed: Uint8Array.from(seed.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16)) }
  } catch {
    // Storage is forbidden here: then a reload makes another peer.
    return undefined
  }
}

function write({ name, seed }: Tab): void {
  try {
    sessionStorage.setItem(KEY, `${name} ${toHex(seed)}`)
  } catch (error) {
    console.warn('this tab will be another peer after a reload:', error)
  }
}
