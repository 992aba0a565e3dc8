// What runs in the page about who may connect.
import { Peerloom } from '/src/index.js'
import { code, echo, event, rejection } from './waiting.mjs'

const OTHER = '12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7'

const gated = (connectionGate) => Peerloom.create({ identity: 'ephemeral', connectionGate })

/** What a gate that lets everything pass was asked. */
export async function gateAsked(address) {
  const asked = []
  const note = (kind) => (about, options) => {
    asked.push([kind, about, options.signal instanceof AbortSignal && !options.signal.aborted])
    return Promise.resolve(true)
  }
  await using node = await gated({
    mayDial: note('dial'),
    mayDialAddress: note('address'),
    mayConnect: note('connect'),
  })
  const peer = await node.dial(address)
  return { asked, echo: await echo(peer, 'through the gate') }
}

/** What becomes of a dial when each function says no, throws or has no answer; and of one without any gate. */
export async function gateRefuses(address) {
  const outcomes = {}
  const refused = async (what, gate, options) => {
    await using node = await gated(gate)
    const failures = []
    node.addEventListener('error', ({ detail }) => failures.push(detail.message))
    const error = await rejection(node.dial(address, options))
    outcomes[what] = { code: error.code, message: error.message, failures, peers: node.peers.length }
  }
  await refused('peer', { mayDial: () => false })
  await refused('address', { mayDialAddress: async () => false })
  await refused('connection', { mayConnect: () => false })
  await refused('noAnswer', { mayDial: () => {} })
  await refused('thrown', {
    mayDial() {
      throw new Error('the list is not loaded')
    },
  })
  let signal
  const pending = (_, options) => {
    signal = options.signal
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  }
  await refused('late', { mayDial: pending, timeout: 50 })
  outcomes.late.aborted = signal.aborted

  await using node = await gated({ mayDial: pending })
  const controller = new AbortController()
  const dialing = code(node.dial(address, { signal: controller.signal }))
  while (signal.aborted) await new Promise((resolve) => setTimeout(resolve, 5))
  controller.abort()
  outcomes.givenUp = { code: await dialing, aborted: signal.aborted }
  outcomes.timeout = await code(gated({ timeout: Number.NaN }))
  return outcomes
}

/** Somebody who comes through a relay, at each step of a gate. */
export async function gateInside(relay) {
  const told = {}
  for (const step of ['mayAccept', 'mayConnect']) {
    const asked = []
    await using inside = await gated({
      [step]: (about) => {
        asked.push(about)
        return !(about.direction === 'inbound' || typeof about === 'string')
      },
    })
    const [circuit] = (await inside.listen(`${relay}/p2p-circuit`)).slice(-1)
    await using outside = await Peerloom.create({ identity: 'ephemeral' })
    const denied = event(inside, 'connection:denied')
    await outside.dial(circuit).catch(() => {})
    const { peer, address, reason } = await denied
    const last = asked.at(-1)
    told[step] = {
      code: reason.code,
      peer: peer === outside.peerId,
      throughRelay: address.includes('/p2p-circuit'),
      asked: step === 'mayAccept' ? last === address : last.peer === peer && last.address === address,
      connected: inside.peers.some(({ id }) => id === outside.peerId),
    }
  }
  return told
}

/** Rules, which change while the node runs. */
export async function rules(address) {
  await using node = await Peerloom.create({ identity: 'ephemeral' })
  const peer = await node.dial(address)
  const codes = { nonsense: await code(node.deny('nonsense')) }
  await node.deny(peer.id, { close: false })
  const stays = await echo(peer, 'still here')
  const closed = event(node, 'connection:close')
  await node.deny(peer.id)
  codes.closed = (await closed).reason.code
  codes.peer = await code(node.dial(address))
  node.allow(peer.id)
  await node.deny('*')
  const ip = address.split('/')[2]
  await node.deny(ip)
  codes.address = await code(node.dial(address))
  codes.everyAddress = await code(node.dial([address, address.replace(/\/tcp\/\d+/, '/tcp/9')]))
  node.allow(address.slice(0, address.indexOf('/p2p/')))
  const again = await node.dial(address)
  codes.everybodyElse = await code(node.dial(address.replace(peer.id, OTHER)))
  return { codes, stays, again: again.id === peer.id }
}
