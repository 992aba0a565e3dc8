/** The list of who is here: for each a thread from this page, with the path that the bytes take. */
import type { CircuitLimit } from 'peerloom'
import { element, prepareCopyButton } from '../elements.ts'
import { formatBytes, formatMilliseconds, formatSeconds, shortPeerId } from '../format.ts'
import type { Member } from './members.ts'

/** What is left of a relay's limit changes all the time. */
const REDRAW_MS = 1_000

const TRANSPORTS: Readonly<Record<string, string>> = { webrtc: 'WebRTC', circuit: 'the relay' }

export class MemberList {
  readonly #list = element('members')
  readonly #rows = new Map<string, Row>()
  readonly #nobody = new Row(undefined)
  #members: readonly Member[] = []

  constructor() {
    this.#list.append(this.#nobody.item)
    setInterval(() => this.show(this.#members), REDRAW_MS)
  }

  show(members: readonly Member[]): void {
    this.#members = members
    const left = new Set(this.#rows.keys())
    for (const member of members) {
      left.delete(member.id)
      let row = this.#rows.get(member.id)
      if (!row) {
        row = new Row(member)
        this.#rows.set(member.id, row)
        this.#list.append(row.item)
      }
      row.show(member)
    }
    for (const id of left) {
      this.#rows.get(id)?.item.remove()
      this.#rows.delete(id)
    }
    this.#nobody.item.hidden = members.length > 0
  }
}

/** What to call a member where its peer id is not beside it: two may use the same browser. */
export function labelOf(member: Pick<Member, 'agent' | 'id'>): string {
  return `${nameOf(member)} …${member.id.slice(-4)}`
}

/** What a member calls itself, as far as it says so. */
function nameOf({ agent }: Pick<Member, 'agent'>): string {
  return /^peerloom-room \((.+)\)$/.exec(agent ?? '')?.[1] ?? 'A peer'
}

class Row {
  readonly item = document.createElement('li')
  readonly #name: HTMLElement
  readonly #path: HTMLElement
  readonly #rest: HTMLElement

  constructor(member: Member | undefined) {
    this.item.dataset.state = 'disconnected'
    this.item.innerHTML = `
      <div class="wire">
        <svg aria-hidden="true" height="28">
          <rect class="thread" width="100%" height="28" fill="url(#threads)"/>
          <line class="cut" x1="0" y1="14" x2="100%" y2="14"/>
          <svg class="relay" x="50%" overflow="visible"><rect x="-27" y="1" width="54" height="26" rx="13"/><text y="18" text-anchor="middle">relay</text></svg>
        </svg>
        <p class="path"></p>
        <p class="rest note"></p>
      </div>
      <div class="peer"><h3></h3><p class="peer-id"></p></div>`
    this.#path = part(this.item, '.path')
    this.#rest = part(this.item, '.rest')
    this.#name = part(this.item, 'h3')
    const id = part(this.item, '.peer-id')
    if (!member) {
      this.item.className = 'nobody'
      this.#name.textContent = 'Nobody else yet'
      id.textContent = 'Whoever opens the link appears here.'
      id.className = 'note'
      return
    }
    const code = document.createElement('code')
    code.textContent = shortPeerId(member.id)
    code.title = member.id
    const copy = document.createElement('button')
    copy.type = 'button'
    copy.className = 'copy'
    copy.ariaLabel = 'Copy the peer id'
    prepareCopyButton(copy, () => member.id)
    id.append(code, copy)
  }

  show(member: Member): void {
    const { state, silent, peer, samples } = member
    this.item.dataset.peer = member.id
    this.item.dataset.path = state === 'relayed' || state === 'direct' ? state : ''
    this.item.dataset.state =
      state === 'gone' ? 'failed' : state === 'connecting' ? 'connecting' : silent ? 'silent' : 'connected'
    set(this.#name, nameOf(member))
    const over = TRANSPORTS[peer?.transport ?? ''] ?? peer?.transport ?? ''
    const last = samples.at(-1)
    const time = last && !silent ? `, ${formatMilliseconds(last.milliseconds)}` : ''
    switch (state) {
      case 'connecting':
        set(this.#path, 'Connecting…')
        break
      case 'gone':
        set(this.#path, member.goneSince > 0 ? 'Has left' : 'Not there')
        break
      default:
        if (silent) set(this.#path, 'Does not answer…')
        else set(this.#path, (state === 'direct' ? `Direct, over ${over}` : 'Through the relay') + time)
    }
    set(this.#rest, state === 'relayed' ? left(peer?.circuit) : '')
  }
}

/** What the relay still lets through. */
function left(circuit: CircuitLimit | undefined): string {
  const limits = [
    circuit?.bytes === undefined ? [] : formatBytes(circuit.bytes),
    circuit?.milliseconds === undefined ? [] : formatSeconds(circuit.milliseconds / 1000),
  ].flat()
  return limits.length > 0 ? `${limits.join(' and ')} left` : ''
}

function part(item: HTMLElement, selector: string): HTMLElement {
  const found = item.querySelector<HTMLElement>(selector)
  if (!found) throw new Error(`the row has no ${selector}`)
  return found
}

/** Leaves what is there alone if it is the same: a selection stays. */
function set(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text
}
