/**
 * `/dnsaddr/…` in a page (the multiaddr spec, "DNSADDR"): the addresses are in TXT records, which a page can ask for by DNS over
 * HTTPS only (RFC 8484), and does so only if the application names a server.
 */
import { abortError, PeerloomError } from './error.js'

/** Names that lead to further names, one behind the other. */
const MAX_DEPTH = 4
/** Names that are asked for in one dial, whoever wrote the records. */
const MAX_NAMES = 100
/** Addresses that are looked at in one dial. */
const MAX_ADDRESSES = 100
/** Bytes of an answer: what DNS itself allows. */
const LONGEST_ANSWER = 65_535
const TIME_LIMIT_MS = 10_000

const TXT = 16
const INTERNET = 1
const HEADER_LENGTH = 12
const RECURSION_DESIRED = 0x0100
const NAME = /^\/dnsaddr\/([^/]+)(\/.*)?$/

/** `addresses` with what stands behind each `/dnsaddr/…` in its place. */
export async function resolveDnsaddr(
  server: string,
  addresses: readonly string[],
  signal: AbortSignal | undefined,
): Promise<string[]> {
  if (!addresses.some((address) => NAME.test(address))) {
    return [...addresses]
  }
  const ending = AbortSignal.any([AbortSignal.timeout(TIME_LIMIT_MS), ...(signal ? [signal] : [])])
  const found: string[] = []
  let failure: unknown
  let names = 0
  let level = [...addresses]
  for (let depth = 0; depth <= MAX_DEPTH && level.length > 0; depth++) {
    const lookups: Promise<string[]>[] = []
    for (const address of level) {
      const [, host, suffix = ''] = NAME.exec(address) ?? []
      if (host === undefined) {
        found.push(address)
      } else if (depth < MAX_DEPTH && names < MAX_NAMES) {
        names++
        lookups.push(behind(server, host, suffix, ending))
      }
    }
    const outcomes = await Promise.allSettled(lookups)
    failure ??= outcomes.find((outcome) => outcome.status === 'rejected')?.reason
    level = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? outcome.value : []))
    level = level.slice(0, MAX_ADDRESSES)
  }
  if (signal?.aborted) {
    throw abortError(signal)
  }
  if (found.length === 0) {
    throw failure ?? new PeerloomError('ERR_NO_ADDRESSES', `${addresses.join(', ')} leads to no address`)
  }
  return ofOnePeer(found.slice(0, MAX_ADDRESSES))
}

/** A name may stand for many peers, any of which will do: the first. */
function ofOnePeer(addresses: string[]): string[] {
  const peerOf = (address: string) => /\/p2p\/([^/]+)$/.exec(address)?.[1]
  const first = addresses.map(peerOf).find((peer) => peer !== undefined)
  return addresses.filter((address) => (peerOf(address) ?? first) === first)
}

/** The addresses that the records of `host` give and that end in `suffix`. */
async function behind(server: string, host: string, suffix: string, signal: AbortSignal): Promise<string[]> {
  let answer: Uint8Array
  try {
    const response = await fetch(server, {
      method: 'POST',
      headers: { accept: 'application/dns-message', 'content-type': 'application/dns-message' },
      body: encodeQuery(`_dnsaddr.${host}`),
      signal,
    })
    if (!response.ok) {
      throw new Error(`status ${response.status}`)
    }
    answer = new Uint8Array(await response.arrayBuffer())
  } catch (error) {
    const message = `${server} does not say what ${host} stands for: ${error instanceof Error ? error.message : error}`
    throw error instanceof PeerloomError
      ? error
      : new PeerloomError('ERR_UNREACHABLE', message, { cause: error })
  }
  const prefix = 'dnsaddr='
  return texts(answer)
    .filter((text) => text.startsWith(prefix) && text.endsWith(suffix))
    .map((text) => text.slice(prefix.length))
}

/** A question for the TXT records of `name` (RFC 1035, section 4.1). */
function encodeQuery(name: string): Uint8Array<ArrayBuffer> {
  const labels = name.split('.').filter((label) => label !== '')
  const encoded = labels.map((label) => new TextEncoder().encode(label))
  const length = encoded.reduce((sum, label) => sum + 1 + label.length, 1)
  if (length > 255 || encoded.some((label) => label.length > 63)) {
    throw new PeerloomError('ERR_INVALID_ARGUMENT', `${name} is too long for a name`)
  }
  const bytes = new Uint8Array(HEADER_LENGTH + length + 4)
  const view = new DataView(bytes.buffer)
  // The identifier is 0, so that caches on the way know the question again (RFC 8484, section 4.1).
  view.setUint16(2, RECURSION_DESIRED)
  view.setUint16(4, 1)
  let at = HEADER_LENGTH
  for (const label of encoded) {
    bytes[at] = label.length
    bytes.set(label, at + 1)
    at += 1 + label.length
  }
  view.setUint16(at + 1, TXT)
  view.setUint16(at + 3, INTERNET)
  return bytes
}

/** The texts in an answer; those before the place where it is malformed. */
function texts(answer: Uint8Array): string[] {
  const found: string[] = []
  if (answer.length < HEADER_LENGTH || answer.length > LONGEST_ANSWER) {
    return found
  }
  const view = new DataView(answer.buffer, answer.byteOffset, answer.byteLength)
  let at = HEADER_LENGTH
  const skipName = () => {
    for (;;) {
      const length = view.getUint8(at)
      at += 1 + (length >= 0xc0 ? 1 : length)
      // A pointer, or the root, is a name's end.
      if (length === 0 || length >= 0xc0) return
    }
  }
  try {
    for (let questions = view.getUint16(4); questions > 0; questions--) {
      skipName()
      at += 4
    }
    for (let answers = view.getUint16(6); answers > 0; answers--) {
      skipName()
      const [type, length] = [view.getUint16(at), view.getUint16(at + 8)]
      at += 10
      const end = at + length
      if (end > answer.length) break
      if (type === TXT) found.push(joined(answer.subarray(at, end)))
      at = end
    }
  } catch (error) {
    // A view says so when something would be read beyond its end.
    if (!(error instanceof RangeError)) throw error
  }
  return found
}

/** A TXT record's strings, of up to 255 bytes, as the one text that they are parts of. */
function joined(record: Uint8Array): string {
  let text = ''
  for (let at = 0; at < record.length; ) {
    const next = at + 1 + (record[at] ?? 0)
    text += new TextDecoder().decode(record.subarray(at + 1, next))
    at = next
  }
  return text
}
