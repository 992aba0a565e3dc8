/** The page: a node, one connection at a time, and what there is to see of it. */
import { Peerloom } from 'peerloom'
import {
  type Choice,
  choose,
  peerOf,
  TRANSPORT_NAMES,
  TRANSPORTS,
  type Transport,
  transportOf,
} from './addresses.ts'
import { element, prepareCopyButtons, showPeer } from './elements.ts'
import { FileSender } from './file_sender.ts'
import type { Sample } from './plot.ts'
import { problemOf } from './problem.ts'
import { RoundTripCard, withSample } from './round_trip_card.ts'
import { fetchServer, type Server } from './server.ts'
import { Session, type State } from './session.ts'

const form = element<HTMLFormElement>('connection')
const address = element<HTMLTextAreaElement>('address')
const connectButton = element<HTMLButtonElement>('connect')
const disconnectButton = element<HTMLButtonElement>('disconnect')
const roundTrips = new RoundTripCard()
const transportInputs = [...form.querySelectorAll<HTMLInputElement>('input[name=transport]')]
const aboutTransport = new Map(transportInputs.map((input) => [input, aboutOf(input).textContent ?? '']))

let server: Server = { peer: '', addresses: [] }
/** What was typed under “Another address”. */
let otherAddress = ''
let samples: readonly Sample[] = []

prepareCopyButtons()
const fetched = fetchServer()
start().catch((error: unknown) => {
  showProblem('Peerloom cannot start in this browser', error)
  setStatus('failed', 'Not started')
})

async function start(): Promise<void> {
  const node = await Peerloom.create()
  showPeer('own-peer', node.peerId)
  const session = new Session(
    node,
    (state) => show(files, state),
    (milliseconds) => showSamples(withSample(samples, milliseconds)),
  )
  const files = new FileSender(session)

  const connect = () => {
    const target = address.value.trim()
    if (target !== '' && session.state.is !== 'connecting') void session.connect(target)
  }
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    connect()
  })
  form.addEventListener('change', (event) => {
    if (transportInputs.includes(event.target as HTMLInputElement)) showAddress()
  })
  address.addEventListener('input', () => {
    otherAddress = address.value
    showAddress()
  })
  address.addEventListener('keydown', (event) => {
    // A multiaddr has no line breaks.
    if (event.key !== 'Enter') return
    event.preventDefault()
    form.requestSubmit()
  })
  disconnectButton.addEventListener('click', () => void session.disconnect())
  element('reconnect').addEventListener('click', async () => {
    // The server may be back with other addresses.
    await loadServer(fetchServer())
    connect()
  })
  // Says goodbye: Firefox does not for a page with WebTransport, and the server would have to find out by itself.
  addEventListener('pagehide', () => void node.close())
  // A page that the browser kept and brings back has said goodbye too.
  addEventListener('pageshow', ({ persisted }) => persisted && location.reload())

  node.addEventListener('error', ({ detail }) => showProblem('Peerloom has stopped', detail))

  await loadServer(fetched)
  show(files, session.state)
}

/** Offers the addresses of the server; without any, one can still be pasted. */
async function loadServer(fetching: Promise<Server>): Promise<void> {
  try {
    server = await fetching
  } catch (error) {
    console.warn('no server is known:', error)
  }
  const choices = new Map(TRANSPORTS.map((transport) => [transport, choose(transport, server.addresses)]))
  for (const input of transportInputs) {
    const choice = choices.get(input.value as Transport)
    const reason = choice && 'reason' in choice ? choice.reason : undefined
    input.disabled = reason !== undefined
    aboutOf(input).textContent = reason ?? aboutTransport.get(input) ?? ''
  }
  const selected = transportInputs.find((input) => input.checked && !input.disabled)
  if (!selected) {
    const first = transportInputs.find((input) => !input.disabled)
    if (first) first.checked = true
  }
  showAddress()
}

/** Shows the address of the transport that is selected, or lets one be typed. */
function showAddress(): void {
  const selected = selectedTransport()
  const choice: Choice = selected === 'other' ? { address: otherAddress } : choose(selected, server.addresses)
  const text = 'address' in choice ? choice.address : ''
  if (address.value !== text) address.value = text
  address.readOnly = selected !== 'other'
  address.placeholder =
    selected === 'other' ? '/ip4/…/udp/…/quic-v1/webtransport/certhash/…/p2p/12D3KooW…' : ''
  element('address-note').textContent = 'note' in choice ? choice.note : ''
  showPeer('server-peer', peerOf(text) ?? (selected === 'other' ? '' : server.peer))
}

function selectedTransport(): Transport | 'other' {
  return (transportInputs.find((input) => input.checked)?.value ?? 'other') as Transport | 'other'
}

/** Fits the page to the state of the session. */
function show(files: FileSender, state: State): void {
  const busy = state.is === 'connecting' || state.is === 'connected'
  for (const input of transportInputs) {
    input.disabled =
      busy || (input.value !== 'other' && 'reason' in choose(input.value as Transport, server.addresses))
  }
  address.disabled = busy
  connectButton.disabled = false
  connectButton.hidden = busy
  disconnectButton.hidden = !busy
  disconnectButton.textContent = state.is === 'connecting' ? 'Cancel' : 'Disconnect'
  element('problem').hidden = state.is !== 'failed'
  files.update()

  const name = 'address' in state ? transportName(state.address) : ''
  switch (state.is) {
    case 'disconnected':
      setStatus('disconnected', 'Not connected')
      break
    case 'connecting':
      showSamples([])
      setStatus('connecting', `Connecting over ${name}…`)
      break
    case 'connected':
      showPeer('server-peer', state.peer.id)
      if (state.silent) setStatus('silent', 'The server does not answer…')
      else setStatus('connected', `Connected over ${name}`)
      break
    case 'failed':
      setStatus('failed', state.lost ? 'Connection lost' : 'Not connected')
      element('reconnect').hidden = !state.lost
      showProblem(state.lost ? 'The connection is lost' : `Cannot connect over ${name}`, state.error)
  }
}

function transportName(address: string): string {
  const transport = transportOf(address)
  return transport ? TRANSPORT_NAMES[transport] : 'an unknown transport'
}

function setStatus(state: string, text: string): void {
  const peers = document.querySelector<HTMLElement>('.peers')
  if (peers) peers.dataset.state = state
  if (element('status').textContent !== text) element('status').textContent = text
}

function showProblem(title: string, error: unknown): void {
  const { code, message, advice } = problemOf(error)
  element('problem-title').textContent = title
  element('problem-advice').textContent = advice
  element('problem-code').textContent = code
  element('problem-message').textContent = message
  element('problem').hidden = false
}

function showSamples(shown: readonly Sample[]): void {
  samples = shown
  roundTrips.show(samples)
}

function aboutOf(input: HTMLInputElement): HTMLElement {
  const about = input.parentElement?.querySelector<HTMLElement>('.about')
  if (!about) throw new Error(`the transport ${input.value} has no description`)
  return about
}
