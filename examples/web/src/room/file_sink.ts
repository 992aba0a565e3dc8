/** Where a received file is kept: on disk, in the private file system that browsers give a site, or else in memory. */
import { formatBytes } from '../format.ts'
import { openTabs } from './tab.ts'

type Bytes = Uint8Array<ArrayBuffer>

/** A private window of Firefox, for example, has no file system. More than this in memory may end the tab. */
const MEMORY_LIMIT = 256 * 1024 * 1024

/** Written at once: each write is a message to another process. */
const BATCH = 1024 * 1024

const FOLDER = 'peerloom-room-'

/** A file is too large for whatever there is to keep it in. */
export class NoRoom extends Error {
  override readonly name = 'NoRoom'
  readonly code = 'NO_ROOM'
}

export abstract class FileSink {
  #batch: Bytes[] = []
  #batched = 0
  #stored = 0

  /** Takes `chunk`, which is the `last` one or not. Resolves to how many bytes are stored by now. */
  async write(chunk: Bytes, last: boolean): Promise<number> {
    this.#batch.push(chunk)
    this.#batched += chunk.length
    if (this.#batched >= BATCH || last) {
      const [batch, length] = [this.#batch, this.#batched]
      this.#batch = []
      this.#batched = 0
      await this.store(new Blob(batch))
      this.#stored += length
    }
    return this.#stored
  }

  protected abstract store(batch: Blob): Promise<void>

  /** The file as a whole, which is read from where it is. */
  abstract finish(): Promise<Blob>

  /** Forgets it; also after it is finished. */
  abstract discard(): Promise<void>
}

/** A place for a file of `size` bytes that belongs to the tab named `tab`. */
export async function openSink(tab: string, size: number): Promise<FileSink> {
  const folder = await folderOf(tab)
  if (!folder) {
    if (size > MEMORY_LIMIT)
      throw new NoRoom(
        `the browser lets this page keep no files, and ${formatBytes(size)} are too much for its memory`,
      )
    return new MemorySink()
  }
  const { quota = Number.POSITIVE_INFINITY, usage = 0 } = await navigator.storage.estimate()
  if (size > quota - usage)
    throw new NoRoom(`the browser gives this page ${formatBytes(quota - usage)} more on the disk`)
  const name = crypto.randomUUID()
  const handle = await folder.getFileHandle(name, { create: true })
  return new DiskSink(folder, handle, await handle.createWritable())
}

/** Removes what tabs have left behind that are no longer open. */
export async function removeLeftovers(): Promise<void> {
  try {
    const root = await navigator.storage.getDirectory()
    const kept = new Set((await openTabs()).map((tab) => FOLDER + tab))
    for await (const name of root.keys()) {
      if (name.startsWith(FOLDER) && !kept.has(name)) await root.removeEntry(name, { recursive: true })
    }
  } catch (error) {
    console.warn('files of former pages could not be removed:', error)
  }
}

/** `undefined` where browsers have none, or forbid it. */
async function folderOf(tab: string): Promise<FileSystemDirectoryHandle | undefined> {
  if (!('createWritable' in (globalThis.FileSystemFileHandle?.prototype ?? {}))) return undefined
  try {
    const root = await navigator.storage.getDirectory()
    return await root.getDirectoryHandle(FOLDER + tab, { create: true })
  } catch (error) {
    console.warn('received files go to memory:', error)
    return undefined
  }
}

class DiskSink extends FileSink {
  readonly #folder: FileSystemDirectoryHandle
  readonly #handle: FileSystemFileHandle
  readonly #writable: FileSystemWritableFileStream

  constructor(
    folder: FileSystemDirectoryHandle,
    handle: FileSystemFileHandle,
    writable: FileSystemWritableFileStream,
  ) {
    super()
    this.#folder = folder
    this.#handle = handle
    this.#writable = writable
  }

  protected override store(batch: Blob): Promise<void> {
    return this.#writable.write(batch)
  }

  override async finish(): Promise<Blob> {
    await this.#writable.close()
    return untyped(await this.#handle.getFile())
  }

  override async discard(): Promise<void> {
    await this.#writable.abort().catch(() => {})
    await this.#folder.removeEntry(this.#handle.name).catch(() => {})
  }
}

class MemorySink extends FileSink {
  #parts: Blob[] = []

  protected override async store(batch: Blob): Promise<void> {
    this.#parts.push(batch)
  }

  override async finish(): Promise<Blob> {
    return untyped(new Blob(this.#parts))
  }

  override async discard(): Promise<void> {
    this.#parts = []
  }
}

/** A file that somebody sent must not be opened as a page of this site, whatever type it is said to be of. */
function untyped(file: Blob): Blob {
  return file.slice(0, file.size, 'application/octet-stream')
}
