import type { CorePassage } from '../generated/peerloom_wasm.js'

/** What every question of a {@link ConnectionGate} comes with. */
export interface GateOptions {
  /** Aborts when nobody waits for the answer any more: the dial was given up, or the time is over. */
  signal: AbortSignal
}

/** A connection whose other side has proved who it is. */
export interface GatedConnection {
  readonly peer: string
  /** The address dialed, or the one that the peer came from. */
  readonly address: string
  /** Who dialed. */
  readonly direction: 'inbound' | 'outbound'
}

type Permission = boolean | Promise<boolean>

/**
 * Who may connect, as the application sees it. Each function is optional, and only `true` is a yes: whoever throws has refused,
 * and the node has an `error` event.
 */
export interface ConnectionGate {
  /** Whether a peer may be dialed at all. Not asked about addresses that do not say whose they are. */
  mayDial?(peer: string, options: GateOptions): Permission
  /** Whether an address may be dialed. Names in addresses are resolved by the browser, which does not say where they lead. */
  mayDialAddress?(address: string, options: GateOptions): Permission
  /** Whether somebody may come in who has not proved yet who that is; a relay says so at the address's end. */
  mayAccept?(address: string, options: GateOptions): Permission
  /** Whether to keep a connection, now that it is known who the other side is. */
  mayConnect?(connection: GatedConnection, options: GateOptions): Permission
  /** How long an answer may take, in milliseconds; no answer is a no. 10,000 unless said otherwise. */
  timeout?: number
}

/** What the core asks: rejects for a no. */
export function gatekeeper(
  gate: ConnectionGate,
  failed: (error: unknown) => void,
): (passage: CorePassage, signal: AbortSignal) => Promise<void> {
  return async (passage, signal) => {
    let answer: boolean
    try {
      answer = await ask(gate, passage, { signal })
    } catch (error) {
      if (!signal.aborted) {
        failed(error)
      }
      throw error
    }
    // Without types, a function may return anything.
    if (answer !== true) {
      throw new Error('the connection gate says no')
    }
  }
}

function ask(gate: ConnectionGate, passage: CorePassage, options: GateOptions): Permission {
  const { kind, peer = '', address = '' } = passage
  switch (kind) {
    case 'peer':
      return gate.mayDial ? gate.mayDial(peer, options) : true
    case 'address':
      return gate.mayDialAddress ? gate.mayDialAddress(address, options) : true
    case 'incoming':
      return gate.mayAccept ? gate.mayAccept(address, options) : true
    default:
      return gate.mayConnect ? gate.mayConnect({ peer, address, direction: kind }, options) : true
  }
}
