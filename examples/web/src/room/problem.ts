/** What to do about an error between pages, where it is something else than about one with a server. */
import { type Problem, problemOf as serverProblemOf } from '../problem.ts'

const ADVICE: Readonly<Record<string, string>> = {
  ERR_CIRCUIT_ENDED: 'The relay allows no more than this. Wait for the direct connection.',
  ERR_CONNECTION_CLOSED:
    'The other page has left, or the network between is gone. Send it again once they are back.',
  ERR_HANDSHAKE: 'The other page is not there any more, or something between the two pages is in the way.',
  ERR_LIMITED_CONNECTION: 'Files go only over a direct connection. Wait until there is one.',
  ERR_LISTEN: 'The server is no relay, or has no place left.',
  ERR_NOT_CONNECTED: 'The other page has left. Send it again once they are back.',
  ERR_PROTOCOL_NOT_SUPPORTED: 'The other peer is no page of this room: it does not know what it was asked.',
  ERR_STREAM_RESET: 'The other page gave up on it. Try again.',
  ERR_TIMED_OUT: 'The other page does not answer. It may be asleep, or gone.',
  ERR_UNREACHABLE: 'Nobody answers there.',
  NO_ROOM: 'Free some space on the disk, or remove files that have arrived.',
  QuotaExceededError: 'The disk is full, or as full as the browser allows. Free some space.',
  TimeoutError: 'The other page does not answer. It may be asleep, or gone.',
}

export function problemOf(error: unknown): Problem {
  const problem = serverProblemOf(error)
  return { ...problem, advice: ADVICE[problem.code] ?? problem.advice }
}
