/** The card with the link to this page: as text, as a QR code, to copy and to share. */
import { announce, element } from '../elements.ts'
import { linkTo } from './link.ts'
import { qrCode } from './qr_code.ts'

export class InvitationCard {
  readonly #card = element<HTMLDetailsElement>('invitation')
  readonly #text = element<HTMLTextAreaElement>('link')
  readonly #copy = element<HTMLButtonElement>('copy-link')
  readonly #share = element<HTMLButtonElement>('share-link')
  readonly #open = element<HTMLAnchorElement>('open-link')

  constructor() {
    this.#text.addEventListener('focus', () => this.#text.select())
    this.#copy.addEventListener('click', async () => {
      await navigator.clipboard.writeText(this.#text.value)
      announce('Copied')
      this.#copy.textContent = 'Copied'
      setTimeout(() => {
        this.#copy.textContent = 'Copy link'
      }, 1500)
    })
    this.#share.addEventListener('click', () => {
      // The user may change their mind, which is no error.
      navigator.share({ url: this.#text.value }).catch(() => {})
    })
  }

  /** Shows the link to `address`. It stays when the relay is lost: it will hold again. */
  show(address: string): void {
    const link = linkTo(address)
    if (link === this.#text.value) return
    this.#text.value = link
    this.#copy.disabled = false
    this.#share.hidden = !('share' in navigator)
    this.#open.href = link
    this.#open.hidden = false
    element('qr').innerHTML = qrCode(link)
    element('link-note').textContent = isOnlyHere(address)
      ? 'It works on this machine only, because the relay is reached at a loopback address.'
      : 'It stays the same when this page is reloaded.'
  }

  /** There is somebody to talk to, so the link steps back. */
  fold(): void {
    this.#card.open = false
  }
}

const isOnlyHere = (address: string) => /^\/(ip4\/127\.|ip6\/::1\/|dns[46]?\/localhost\/)/.test(address)
