/** The card with the chat: what was said, by whom, whether it arrived, and who came and went. */
import { element } from '../elements.ts'
import type { Chat } from './chat.ts'
import { labelOf } from './member_list.ts'
import type { Member, Members } from './members.ts'
import { problemOf } from './problem.ts'
import type { Recipients } from './recipients.ts'

/** Older lines go, or whoever writes without end fills the page. */
const KEPT_LINES = 500

export class ChatCard {
  readonly #chat: Chat
  readonly #members: Members
  readonly #recipients: Recipients
  readonly #log = element('log')
  readonly #input = element<HTMLInputElement>('message')

  constructor(chat: Chat, members: Members, recipients: Recipients) {
    this.#chat = chat
    this.#members = members
    this.#recipients = recipients
    element('chat').addEventListener('submit', (event) => {
      event.preventDefault()
      this.#say()
    })
  }

  /** Shows what comes. */
  listen(): Promise<void> {
    return this.#chat.receive((from, text) => {
      const member = this.#members.all.find(({ id }) => id === from)
      this.#add('theirs', labelOf(member ?? { id: from, agent: undefined }), text)
    })
  }

  /** Who came, and who left. */
  tell(text: string): void {
    this.#add('event', '', text)
  }

  /** Fits the card to who is here. */
  update(): void {
    const nobody = this.#recipients.chosen.length === 0
    this.#input.disabled = nobody
    element<HTMLButtonElement>('say').disabled = nobody
    this.#input.placeholder = nobody ? 'Nobody is here' : 'Message'
  }

  #say(): void {
    const text = this.#input.value.trim()
    const to = this.#recipients.chosen
    if (text === '' || to.length === 0) return
    this.#input.value = ''
    const mark = this.#add('mine', to.length > 1 ? 'You' : `You to ${to.map(labelOf).join()}`, text)
    void this.#deliver(to, text, mark)
  }

  async #deliver(to: readonly Member[], text: string, mark: HTMLElement): Promise<void> {
    const results = await Promise.allSettled(to.map(({ id }) => this.#chat.send(id, text)))
    const failures = results.flatMap((result, index) => {
      const member = to[index]
      if (result.status === 'fulfilled' || !member) return []
      const { code, advice } = problemOf(result.reason)
      return `not delivered to ${labelOf(member)}: ${advice} (${code})`
    })
    mark.className = `delivery ${failures.length === 0 ? 'good' : 'bad'}`
    this.#scrolling(() => {
      mark.textContent = failures.length === 0 ? '✓ delivered' : `✗ ${failures.join('; ')}`
    })
  }

  #add(kind: 'mine' | 'theirs' | 'event', from: string, text: string): HTMLElement {
    const line = document.createElement('p')
    line.className = kind
    const mark = document.createElement('span')
    mark.className = 'delivery'
    if (from !== '') {
      const who = document.createElement('span')
      who.className = 'from'
      who.textContent = from
      line.append(who)
    }
    const said = document.createElement('span')
    said.className = 'text'
    said.textContent = text
    line.append(said, mark)
    this.#scrolling(() => {
      this.#log.append(line)
      while (this.#log.children.length > KEPT_LINES) this.#log.firstElementChild?.remove()
    }, kind === 'mine')
    return mark
  }

  /** Keeps the end in sight while something is added, but whoever reads further up stays there. */
  #scrolling(add: () => void, always = false): void {
    const { scrollTop, clientHeight, scrollHeight } = this.#log
    const atEnd = scrollTop + clientHeight > scrollHeight - 40
    add()
    if (atEnd || always) this.#log.scrollTop = this.#log.scrollHeight
  }
}
