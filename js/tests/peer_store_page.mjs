// What runs in the page for the tests of what is kept of peers.
import { Peerloom } from '/src/index.js'
import { bytes, code, echo, event, text } from './waiting.mjs'

const create = (store) => Peerloom.create({ identity: 'ephemeral', peerStore: { store } })
const databaseOf = (store) => `peerloom-peers/${store}`

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
    request.onblocked = () => reject(new Error('blocked'))
  })
}

/** Connects once, and leaves. */
export async function meets(address, store, name) {
  await using node = await create(store)
  const told = event(node, 'peer:identify', ({ protocols }) => protocols.length > 0)
  const { id } = await node.dial(address)
  await told
  node.setMetadata(id, name, bytes(`set by ${name}`))
  return { id, kept: node.peersKept }
}

/** Connects by the peer id alone. */
export async function meetsAgain(id, store, name) {
  await using node = await create(store)
  const { protocols, agentVersion } = node.details(id)
  const value = node.metadata(id, name)
  const peer = await node.dial(id)
  return {
    knew: protocols.includes('/echo/1.0.0'),
    agentVersion,
    metadata: value && text(value),
    echo: await echo(peer, 'again'),
  }
}

/** Several nodes of this page use one store at a time. */
export async function meetsSeveralTimes(address, store, name) {
  const ids = new Set()
  for (let round = 0; round < 3; round++) {
    const met = await Promise.all([1, 2].map(() => meets(address, store, name)))
    for (const { id } of met) ids.add(id)
  }
  return [...ids]
}

export async function forgets(id, store) {
  {
    await using node = await create(store)
    node.forget(id)
  }
  await using node = await create(store)
  return { addresses: node.details(id).addresses, dial: await code(node.dial(id)) }
}

export async function whatIsKept() {
  const kept = {}
  const store = crypto.randomUUID()
  for (const [name, options] of Object.entries({
    withIdentity: { identity: { store } },
    notSaid: { identity: { store }, peerStore: 'memory' },
    ephemeral: { identity: 'ephemeral' },
    seed: { identity: new Uint8Array(32).fill(7) },
    apart: { identity: 'ephemeral', peerStore: { store } },
  })) {
    await using node = await Peerloom.create(options)
    kept[name] = node.peersKept
  }
  return kept
}

/** Runs with `object[name]` replaced. */
async function replaced(object, name, value, run) {
  const own = Object.getOwnPropertyDescriptor(object, name)
  Object.defineProperty(object, name, { value, configurable: true, writable: true })
  try {
    return await run()
  } finally {
    if (own) Object.defineProperty(object, name, own)
    else delete object[name]
  }
}

/** Storage that is missing, forbidden, silent or full. */
export async function withoutStorage(address) {
  const outcomes = {}
  const forbidden = () => {
    throw new DOMException('The operation is insecure.', 'SecurityError')
  }
  const full = () => {
    throw new DOMException('The quota has been exceeded.', 'QuotaExceededError')
  }
  for (const [name, object, property, value] of [
    ['missing', globalThis, 'indexedDB', undefined],
    ['forbidden', IDBFactory.prototype, 'open', forbidden],
    ['silent', IDBFactory.prototype, 'open', () => ({})],
    ['full', IDBObjectStore.prototype, 'put', full],
  ]) {
    outcomes[name] = await replaced(object, property, value, async () => {
      await using node = await create(crypto.randomUUID())
      const peer = await node.dial(address)
      return { kept: node.peersKept, echo: await echo(peer, name) }
    })
  }
  return outcomes
}

/** What is in the database that is not ours is skipped. */
export async function foreignRecords(address, store, somebody) {
  const { id } = await meets(address, store, 'first')
  const database = await done(indexedDB.open(databaseOf(store)))
  const table = () => database.transaction('peers', 'readwrite').objectStore('peers')
  const genuine = await done(table().get(id))
  for (const record of [
    { peer: 'nobody', record: new Uint8Array(3) },
    { peer: 'no record' },
    { peer: somebody, record: genuine.record, stamp: 1 },
  ]) {
    await done(table().put(record))
  }
  let addresses
  {
    await using node = await create(store)
    addresses = node.details(somebody).addresses
    await node.dial(id)
  }
  const left = await done(table().get(somebody))
  database.close()
  return { addresses, left: left ?? null }
}

/** Whoever deletes what is kept need not wait for a node. */
export async function deletedDatabase(address, store) {
  await using node = await create(store)
  await node.dial(address)
  await done(indexedDB.deleteDatabase(databaseOf(store)))
  await node.disconnect(node.peers[0].id)
  return node.peers.length
}

export async function tellsOfProtocols(address) {
  await using node = await Peerloom.create({ identity: 'ephemeral' })
  const changes = []
  for (let time = 0; time < 2; time++) {
    const told = event(node, 'peer:protocols')
    const peer = await node.dial(address)
    const { id, added, removed } = await told
    changes.push({ same: id === peer.id, echo: added.includes('/echo/1.0.0'), removed: removed.length })
    await node.disconnect(peer.id)
  }
  return changes
}
