/** Hashes what it is sent, away from the thread that draws and talks to the network. */
import { sha256 } from '@noble/hashes/sha2.js'

const hash = sha256.create()

addEventListener('message', ({ data }: MessageEvent<Uint8Array | 'digest'>) => {
  if (data === 'digest') {
    postMessage(hash.digest())
  } else {
    hash.update(data)
    postMessage(data.length)
  }
})
