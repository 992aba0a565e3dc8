/** Timers of a page in the background are late by up to a minute; what is later has slept with the machine. */
const SLEPT_MS = 90_000
const TICK_MS = 30_000
/** A page that was out of sight for a moment has missed nothing. */
const HIDDEN_MS = 5_000

/**
 * Calls `woken` when the network is back, or the page is after it was frozen, out of sight, or asleep with the machine. Ends when
 * the function returned is called.
 */
export function onWake(woken: () => void): () => void {
  let hiddenSince: number | undefined
  const shown = () => {
    if (document.visibilityState === 'hidden') {
      hiddenSince ??= Date.now()
    } else if (hiddenSince !== undefined) {
      const hiddenFor = Date.now() - hiddenSince
      hiddenSince = undefined
      if (hiddenFor >= HIDDEN_MS) {
        woken()
      }
    }
  }
  const restored = (event: Event) => {
    if ((event as PageTransitionEvent).persisted) {
      woken()
    }
  }
  // A worker has no document, and hears of the network only.
  const page = typeof document === 'undefined' ? undefined : document
  const listeners: [EventTarget | undefined, string, (event: Event) => void][] = [
    [globalThis, 'online', woken],
    [globalThis, 'pageshow', restored],
    [page, 'visibilitychange', shown],
    [page, 'resume', woken],
  ]
  for (const [target, type, listener] of listeners) {
    target?.addEventListener?.(type, listener)
  }
  // By the clock on the wall: not every browser's other one goes on while the machine sleeps.
  let seen = Date.now()
  const tick = setInterval(() => {
    const late = Date.now() - seen - TICK_MS
    seen = Date.now()
    if (late >= SLEPT_MS) {
      woken()
    }
  }, TICK_MS)
  return () => {
    clearInterval(tick)
    for (const [target, type, listener] of listeners) {
      target?.removeEventListener?.(type, listener)
    }
  }
}
