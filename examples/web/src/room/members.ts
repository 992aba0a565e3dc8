/** Who is in the room: every other page that is connected to this one, the best path to it, and its round trips. */
import type { Peer, Peerloom } from 'peerloom'
import type { Sample } from '../plot.ts'
import { withSample } from '../round_trip_card.ts'
import { pause } from '../waiting.ts'

export interface Member {
  readonly id: string
  /** What it calls its software. */
  agent: string | undefined
  /**
   * `relayed`: connected, but only through the relay. `direct`: connected without a detour. `silent`: the connection is there,
   * and nothing comes.
   */
  state: 'connecting' | 'relayed' | 'direct' | 'gone'
  silent: boolean
  /** It has been told that the member came. */
  welcome: boolean
  /** Aborts when the last connection is over. */
  stay: AbortController
  /** Over the best connection there is. */
  peer: Peer | undefined
  samples: readonly Sample[]
  /** By Date.now(). */
  goneSince: number
}

export type Change = 'came' | 'upgraded' | 'left' | 'other'

const PING_MS = 1_000
/** After this long without an answer the page says so; */
const SILENT_MS = 3_000
/** after this long it gives the connections up, so that another one can be made. */
const LOST_MS = 15_000
/** A member says what to call it soon after it came; without that it is called by its peer id. */
const NAMELESS_MS = 2_000
/** Those who left stay in the list for a while: a page that reloads is back in a moment. */
const REMEMBERED_MS = 60_000
const REMEMBERED = 16

export class Members {
  readonly #node: Peerloom
  readonly #onChange: (member: Member, change: Change) => void
  readonly #members = new Map<string, Member>()
  /** Whose page this one was invited by: is listed even before it is connected. */
  #host: string | undefined

  constructor(node: Peerloom, onChange: (member: Member, change: Change) => void) {
    this.#node = node
    this.#onChange = onChange
    node.addEventListener('connection:open', ({ detail }) => this.#refresh(detail))
    node.addEventListener('connection:close', ({ detail }) => this.#refresh(detail.peer))
    node.addEventListener('connection:upgraded', ({ detail }) => this.#refresh(detail.peer))
    node.addEventListener('peer:identify', ({ detail: { id, agentVersion } }) => {
      const member = this.#members.get(id)
      if (!member || member.agent === agentVersion) return
      member.agent = agentVersion
      this.#welcome(member)
    })
  }

  get all(): Member[] {
    return [...this.#members.values()]
  }

  /** Those who are connected now. */
  get present(): Member[] {
    return this.all.filter(({ peer }) => peer !== undefined)
  }

  /** Lists the peer that is about to be dialed. */
  expect(host: string): void {
    this.#host = host
    const member = this.#member(host)
    if (member.peer) return
    member.state = 'connecting'
    this.#onChange(member, 'other')
  }

  /** The peer that was dialed is not there. */
  missed(host: string): void {
    const member = this.#member(host)
    if (member.peer) return
    member.state = 'gone'
    this.#onChange(member, 'other')
  }

  #refresh({ id, transport }: Peer): void {
    // Whoever is reached without a relay and without the help of one is a server, above all the relay itself.
    if (transport !== 'circuit' && transport !== 'webrtc') return
    const member = this.#member(id)
    const before = member.state
    const best = bestOf(this.#node.peers.filter((peer) => peer.id === id))
    const isNew = best !== undefined && member.peer === undefined
    member.peer = best
    member.state = best === undefined ? 'gone' : best.direct ? 'direct' : 'relayed'
    member.goneSince = Date.now()
    if (isNew) {
      member.samples = []
      member.silent = false
      member.stay = new AbortController()
      void this.#ping(member, member.stay.signal)
      void pause(NAMELESS_MS).then(() => this.#welcome(member))
    }
    if (best === undefined) {
      member.stay.abort()
      void this.#forgetLater(member)
    }
    // Nobody upgrades or leaves who has not come.
    this.#onChange(member, member.welcome ? changeOf(before, member.state) : 'other')
    if (best === undefined) member.welcome = false
  }

  /** Tells that the member has come. */
  #welcome(member: Member): void {
    const first = member.peer !== undefined && !member.welcome
    if (first) member.welcome = true
    this.#onChange(member, first ? 'came' : 'other')
  }

  #member(id: string): Member {
    let member = this.#members.get(id)
    if (!member) {
      member = {
        id,
        agent: undefined,
        state: 'connecting',
        silent: false,
        stay: new AbortController(),
        welcome: false,
        peer: undefined,
        samples: [],
        goneSince: 0,
      }
      this.#members.set(id, member)
    }
    return member
  }

  /** Measures once a second, over whatever is the best connection then. */
  async #ping(member: Member, stay: AbortSignal): Promise<void> {
    let heard = performance.now()
    while (!stay.aborted) {
      const start = performance.now()
      try {
        const signal = AbortSignal.any([stay, AbortSignal.timeout(LOST_MS)])
        const pinging = this.#node.ping(member.id, { signal })
        const said = setTimeout(() => stay.aborted || this.#setSilent(member, true), SILENT_MS)
        const milliseconds = await pinging.finally(() => clearTimeout(said))
        heard = performance.now()
        member.samples = withSample(member.samples, milliseconds)
        this.#setSilent(member, false)
        this.#onChange(member, 'other')
      } catch {
        // A page in the background is late itself; only what took about as long as it should counts.
        const now = performance.now()
        if (!stay.aborted && now - heard > LOST_MS && now - start < LOST_MS + PING_MS)
          await this.#node.disconnect(member.id).catch(() => {})
      }
      await pause(PING_MS - Math.min(performance.now() - start, PING_MS), stay)
    }
  }

  #setSilent(member: Member, silent: boolean): void {
    if (member.silent === silent || !member.peer) return
    member.silent = silent
    this.#onChange(member, 'other')
  }

  async #forgetLater(member: Member): Promise<void> {
    const gone = this.all.filter(({ id, state }) => state === 'gone' && id !== this.#host)
    for (const { id } of gone.slice(0, -REMEMBERED)) this.#members.delete(id)
    await pause(REMEMBERED_MS)
    const stillGone = member.state === 'gone' && Date.now() - member.goneSince >= REMEMBERED_MS
    if (!stillGone || member.id === this.#host) return
    this.#members.delete(member.id)
    this.#onChange(member, 'other')
  }
}

/** The newest direct connection, or else the newest one. */
function bestOf(connections: readonly Peer[]): Peer | undefined {
  return connections.filter(({ direct }) => direct).at(-1) ?? connections.at(-1)
}

function changeOf(before: Member['state'], after: Member['state']): Change {
  if (after === 'gone') return 'left'
  return before === 'relayed' && after === 'direct' ? 'upgraded' : 'other'
}
