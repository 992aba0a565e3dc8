import init, { type InitInput, start } from '../generated/peerloom_wasm.js'
import { PeerloomError, toPeerloomError } from './error.js'

/** Where the core comes from, if not from beside this package's JavaScript. */
export type WasmSource = URL | string | Request | Response | BufferSource | WebAssembly.Module

/** What localStorage says about logs, for example `debug` or `peerloom_node=debug,info`. */
const LOG_KEY = 'peerloom.log'

let loading: Promise<void> | undefined
let bug: PeerloomError | undefined
/** Whoever waits for the core. A core that has stopped never settles their promises by itself. */
const waiting = new Set<(error: PeerloomError) => void>()
const bugListeners = new Set<(error: PeerloomError) => void>()

/** Loads the core, once for all nodes of this page or worker. */
export function loadCore(wasm?: WasmSource | Promise<WasmSource>): Promise<void> {
  loading ??= load(wasm).catch((error: unknown) => {
    // The next attempt may have a better network.
    loading = undefined
    throw new PeerloomError('ERR_WASM_LOAD', `the Wasm core could not be loaded: ${String(error)}`, {
      cause: error,
    })
  })
  return loading
}

async function load(wasm?: WasmSource | Promise<WasmSource>): Promise<void> {
  await init(wasm === undefined ? undefined : { module_or_path: wasm as InitInput })
  globalThis.addEventListener?.('error', (event) => {
    // Traps that are no panics, such as a stack overflow, show only here.
    const error: unknown = (event as ErrorEvent).error
    if (isTrap(error) && error.stack?.includes('peerloom_wasm')) {
      stop(error.message)
    }
  })
  start(logFilter(), stop)
}

/** Calls the core; a promise of its is rejected if the core stops before it has settled. */
export function call<T>(work: () => T | Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    if (bug) {
      reject(bug)
      return
    }
    const failed = (error: unknown) => {
      waiting.delete(reject)
      if (isTrap(error)) {
        stop(error.message)
      }
      reject(bug ?? toPeerloomError(error))
    }
    waiting.add(reject)
    try {
      Promise.resolve(work()).then((value) => {
        waiting.delete(reject)
        resolve(value)
      }, failed)
    } catch (error) {
      failed(error)
    }
  })
}

/** Calls the core where an answer comes at once. */
export function callNow<T>(work: () => T): T {
  if (bug) {
    throw bug
  }
  try {
    return work()
  } catch (error) {
    if (isTrap(error)) {
      stop(error.message)
    }
    throw bug ?? toPeerloomError(error)
  }
}

/** Tells of a bug in the core, after which it does nothing more. */
export function onBug(listener: (error: PeerloomError) => void): () => void {
  bugListeners.add(listener)
  return () => bugListeners.delete(listener)
}

function stop(message: string): void {
  if (bug) {
    return
  }
  bug = new PeerloomError('ERR_PANIC', `a bug in the Peerloom core stopped it: ${message}`)
  for (const reject of [...waiting, ...bugListeners]) {
    reject(bug)
  }
  waiting.clear()
}

function isTrap(error: unknown): error is WebAssembly.RuntimeError {
  return error instanceof WebAssembly.RuntimeError
}

function logFilter(): string | undefined {
  try {
    // Absent in workers; throws where storage is forbidden.
    return globalThis.localStorage?.getItem(LOG_KEY) ?? undefined
  } catch {
    return undefined
  }
}
