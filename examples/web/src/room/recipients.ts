/** To whom messages and files go: to everyone, or to one that is chosen once there are several. */
import { element } from '../elements.ts'
import { labelOf } from './member_list.ts'
import type { Member } from './members.ts'

const EVERYONE = ''

export class Recipients {
  readonly #select = element<HTMLSelectElement>('to')
  #present: readonly Member[] = []

  constructor(onChoice: () => void) {
    this.#select.addEventListener('change', onChoice)
  }

  /** Those who are connected now, and chosen. */
  get chosen(): Member[] {
    const id = this.#select.value
    return this.#present.filter((member) => id === EVERYONE || member.id === id)
  }

  show(present: readonly Member[]): void {
    this.#present = present
    element('recipients').hidden = present.length < 2
    const options = [
      [EVERYONE, 'everyone here'],
      ...present.map((member) => [member.id, labelOf(member)]),
    ] as const
    const same =
      options.length === this.#select.options.length &&
      options.every(([id, name], index) => {
        const option = this.#select.options[index]
        return option?.value === id && option.text === name
      })
    // An open list would close.
    if (same) return
    const before = this.#select.value
    this.#select.replaceChildren(...options.map(([id, name]) => new Option(name, id)))
    this.#select.value = options.some(([id]) => id === before) ? before : EVERYONE
  }
}
