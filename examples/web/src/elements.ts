/** The page's elements, by their ids. */
import { shortPeerId } from './format.ts'

export function element<T extends Element = HTMLElement>(id: string): T {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`the page has no element #${id}`)
  return found as Element as T
}

/** Buttons that put an id on the clipboard: the page shows a short form, and people need the whole one. */
export function prepareCopyButtons(): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>('button.copy'))
    prepareCopyButton(button, () => element(button.dataset.copy ?? '').title)
}

/** Has `button` put `text()` on the clipboard. */
export function prepareCopyButton(button: HTMLButtonElement, text: () => string): void {
  button.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true">
    <g class="idle"><rect x="5.5" y="5.5" width="8" height="8" rx="1.5"/><path d="M10.5 2.5h-6a2 2 0 0 0-2 2v6"/></g>
    <path class="done" d="m3 8.5 3.5 3.5L13 4.5"/></svg>`
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(text())
    button.classList.add('copied')
    announce('Copied')
    setTimeout(() => button.classList.remove('copied'), 1500)
  })
}

/** Tells those who cannot see what has changed. */
export function announce(text: string): void {
  element('announcer').textContent = text
}

/** Shows the short form of a peer id; the whole is its tooltip, and what the button beside it copies. */
export function showPeer(id: string, peerId: string): void {
  const code = element(id)
  code.textContent = peerId === '' ? 'unknown' : shortPeerId(peerId)
  code.title = peerId
  const button = document.querySelector<HTMLButtonElement>(`button[data-copy=${id}]`)
  if (button) button.hidden = peerId === ''
}

/** Has files that are dropped on `zone` go to `use`, while `ready`. */
export function acceptDrops(
  zone: HTMLElement,
  ready: () => boolean,
  use: (files: readonly File[]) => void,
): void {
  // A file dropped beside the zone would replace the page.
  for (const type of ['dragover', 'drop'] as const) addEventListener(type, (event) => event.preventDefault())
  for (const type of ['dragenter', 'dragover'] as const) {
    zone.addEventListener(type, () => zone.classList.toggle('over', ready()))
  }
  for (const type of ['dragleave', 'drop'] as const) {
    zone.addEventListener(type, () => zone.classList.remove('over'))
  }
  zone.addEventListener('drop', (event) => ready() && use([...(event.dataTransfer?.files ?? [])]))
}
