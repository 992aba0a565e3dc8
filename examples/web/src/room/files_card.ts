/** The card with the files: dropping some sends them, and what others send is offered here. */
import type { Peerloom, PeerloomStream } from 'peerloom'
import { acceptDrops, announce, element } from '../elements.ts'
import { formatBytes } from '../format.ts'
import { FILE_PROTOCOL, receiveFile, sendFile } from './file_protocol.ts'
import { type FileSink, openSink } from './file_sink.ts'
import { labelOf } from './member_list.ts'
import type { Member, Members } from './members.ts'
import type { Recipients } from './recipients.ts'
import { button, TransferRow } from './transfer_row.ts'

/** Files that one page may offer or send at a time; it cannot fill this page with questions. */
const INCOMING_LIMIT = 8

/** Of those that came to nothing, the latest stay in the list. */
const KEPT_ENDED = 20

export class FilesCard {
  readonly #node: Peerloom
  readonly #tab: string
  readonly #members: Members
  readonly #recipients: Recipients
  readonly #list = element('transfers')
  readonly #input = element<HTMLInputElement>('file')
  /** By peer, how many files are coming from it. */
  readonly #incoming = new Map<string, number>()

  constructor(node: Peerloom, tab: string, members: Members, recipients: Recipients) {
    this.#node = node
    this.#tab = tab
    this.#members = members
    this.#recipients = recipients
    this.#input.addEventListener('change', () => {
      this.#sendAll(this.#input.files ?? [])
      // The same file can be chosen again.
      this.#input.value = ''
    })
    acceptDrops(
      element('drop'),
      () => !this.#input.disabled,
      (files) => this.#sendAll(files),
    )
  }

  /** Offers to the user what comes. Only over direct connections: a relay carries no files. */
  listen(): Promise<void> {
    return this.#node.handle(FILE_PROTOCOL, async ({ stream, peer }) => {
      const count = this.#incoming.get(peer.id) ?? 0
      if (count >= INCOMING_LIMIT) {
        stream.abort(new Error('too many files at a time'))
        return
      }
      this.#incoming.set(peer.id, count + 1)
      await this.#receive(stream)
      this.#incoming.set(peer.id, (this.#incoming.get(peer.id) ?? 1) - 1)
    })
  }

  /** Fits the card to who is here. */
  update(): void {
    const { chosen } = this.#recipients
    const direct = chosen.filter(({ state }) => state === 'direct')
    this.#input.disabled = direct.length === 0
    element('file-about').textContent = aboutFiles(chosen.length, direct)
  }

  #sendAll(files: Iterable<File>): void {
    const direct = this.#recipients.chosen.filter(({ state }) => state === 'direct')
    for (const file of files) for (const member of direct) void this.#send(file, member)
  }

  async #send(file: File, member: Member): Promise<void> {
    const row = this.#add(new TransferRow('going', file.name, file.size, `to ${labelOf(member)}`))
    row.waiting(`Waiting for ${labelOf(member)} to accept…`)
    try {
      const digests = await sendFile(this.#node, member.id, file, row.signal, (stored) =>
        row.progress(stored),
      )
      row.done(digests)
      announce(`${file.name} has been sent`)
    } catch (error) {
      row.ended(error)
    }
  }

  async #receive(stream: PeerloomStream): Promise<void> {
    const from = labelOf(
      this.#members.all.find(({ id }) => id === stream.peer.id) ?? { id: stream.peer.id, agent: undefined },
    )
    // Cancels what the row shows; the row comes only with the description of the file.
    const cancelling = new AbortController()
    const over = new AbortController()
    let row: TransferRow | undefined
    let sink: FileSink | undefined
    let name = ''
    try {
      const received = await receiveFile(
        stream,
        cancelling.signal,
        async (offer) => {
          name = offer.name
          row = this.#add(new TransferRow('returning', name, offer.size, `from ${from}`))
          row.signal.addEventListener('abort', () => cancelling.abort(row?.signal.reason))
          announce(`${from} wants to send ${name}, ${formatBytes(offer.size)}`)
          if (!(await row.ask(over.signal))) return undefined
          sink = await openSink(this.#tab, offer.size)
          row.progress(0)
          return sink
        },
        (stored) => row?.progress(stored),
      )
      if (!received) {
        row?.declined()
        return
      }
      row?.done(received)
      announce(`${name} has arrived`)
      if (row && received.sent === received.received) offerToSave(row, name, received.file, sink)
    } catch (error) {
      over.abort()
      if (row) row.ended(error)
      else console.warn('a file was not offered as it should be:', error)
    }
  }

  #add(row: TransferRow): TransferRow {
    this.#list.prepend(row.item)
    const ended = this.#list.querySelectorAll(':is([data-state="cancelled"], [data-state="failed"])')
    for (const old of [...ended].slice(KEPT_ENDED)) old.remove()
    return row
  }
}

/** The file lies in the browser until the user saves it, or lets it go. */
function offerToSave(row: TransferRow, name: string, file: Blob, sink: FileSink | undefined): void {
  const link = document.createElement('a')
  link.className = 'button primary'
  link.textContent = 'Save'
  link.href = URL.createObjectURL(file)
  link.download = name
  const remove = button('Remove', () => {
    URL.revokeObjectURL(link.href)
    void sink?.discard()
    row.item.remove()
  })
  row.offer(link, remove)
}

function aboutFiles(chosen: number, direct: readonly Member[]): string {
  if (chosen === 0) return 'Files go from page to page; no server stores them.'
  if (direct.length === 0)
    return 'Files go only over a direct connection, and there is none: the relay carries messages.'
  const to = direct.length === 1 && direct[0] ? labelOf(direct[0]) : `${direct.length} pages`
  const but = direct.length < chosen ? ', not to those behind the relay' : ''
  return `They go directly to ${to}${but}. Both ends hash them.`
}
