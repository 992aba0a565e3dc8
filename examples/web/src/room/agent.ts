/** What this page calls itself, so that people know which of their devices it is. */

const BROWSERS: readonly [RegExp, string][] = [
  [/Firefox\//, 'Firefox'],
  [/Edg\//, 'Edge'],
  [/Chrome\//, 'Chromium'],
  [/Safari\//, 'Safari'],
]

const SYSTEMS: readonly [RegExp, string][] = [
  [/Android/, 'Android'],
  [/iPhone|iPad/, 'iOS'],
  [/Windows/, 'Windows'],
  [/Mac OS/, 'macOS'],
  [/Linux/, 'Linux'],
]

/** `peerloom-room (Firefox on Linux)`. */
export function agentVersion(): string {
  const known = (names: readonly [RegExp, string][]) =>
    names.find(([pattern]) => pattern.test(navigator.userAgent))?.[1]
  return `peerloom-room (${known(BROWSERS) ?? 'A browser'}${known(SYSTEMS) ? ` on ${known(SYSTEMS)}` : ''})`
}
