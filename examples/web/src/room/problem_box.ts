/** The box that says what is wrong; of several things the one that the others come from. */
import { element } from '../elements.ts'
import { problemOf } from './problem.ts'

export interface Trouble {
  title: string
  error: unknown
  /** If the advice for the error is not for where it happened. */
  advice?: string
  /** What the button does, which is there if there is something to try. */
  retry?: () => void
}

/** Causes first. */
const ORDER = ['node', 'link', 'relay', 'joining'] as const

export class ProblemBox {
  readonly #troubles = new Map<(typeof ORDER)[number], Trouble>()
  readonly #retry = element<HTMLButtonElement>('retry')

  constructor() {
    this.#retry.addEventListener('click', () => this.#first()?.retry?.())
  }

  /** Shows a trouble, or that it is over. */
  set(place: (typeof ORDER)[number], trouble: Trouble | undefined): void {
    if (trouble) this.#troubles.set(place, trouble)
    else this.#troubles.delete(place)
    const first = this.#first()
    element('problem').hidden = first === undefined
    if (!first) return
    const { code, message, advice } = problemOf(first.error)
    const texts = {
      'problem-title': first.title,
      'problem-advice': first.advice ?? advice,
      'problem-code': code,
      'problem-message': message,
    }
    // What has not changed is not read out again.
    for (const [id, text] of Object.entries(texts))
      if (element(id).textContent !== text) element(id).textContent = text
    this.#retry.hidden = first.retry === undefined
  }

  #first(): Trouble | undefined {
    return ORDER.map((place) => this.#troubles.get(place)).find((trouble) => trouble !== undefined)
  }
}
