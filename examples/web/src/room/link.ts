/** The link to a room: this page's URL, with the address of the one who invites in its fragment. */

/** Where a link leads, or why it leads nowhere. */
export type Target = { address: string; peer: string } | { wrong: string }

/** A page behind a relay: the relay's address and peer id, then the way on from there. */
const ADDRESS = /^\/.+\/p2p\/[^/]+\/p2p-circuit\/webrtc\/p2p\/([1-9A-HJ-NP-Za-km-z]{40,})$/

/** Every character of a multiaddr may stand in a fragment as it is. */
export function linkTo(address: string): string {
  const link = new URL(location.href)
  link.search = ''
  link.hash = address
  return link.href
}

/** What the fragment of a link says; `undefined` if there is none. */
export function targetOf(hash: string): Target | undefined {
  const text = decoded(hash.replace(/^#/, '')).trim()
  if (text === '') return undefined
  const peer = ADDRESS.exec(text)?.[1]
  return peer === undefined ? { wrong: text } : { address: text, peer }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
