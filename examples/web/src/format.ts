/** Numbers and names as people read them. */

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']

/** `1.5 MiB`; three significant digits, so that a growing number does not jump about. */
export function formatBytes(bytes: number): string {
  let unit = 0
  let value = bytes
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? value : threeDigits(value)} ${UNITS[unit]}`
}

/** `0.42 ms`, `12.3 ms`. */
export function formatMilliseconds(milliseconds: number): string {
  return `${threeDigits(milliseconds)} ms`
}

/** `8 s`, `3 min 20 s`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.ceil(seconds)
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`
}

/** The beginning says which kind of key it is, the end tells peers apart. */
export function shortPeerId(peerId: string): string {
  return peerId.length > 20 ? `${peerId.slice(0, 8)}…${peerId.slice(-8)}` : peerId
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

function threeDigits(value: number): string {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)
}
