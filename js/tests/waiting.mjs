// What the tests in the page have in common.

export const text = (bytes) => new TextDecoder().decode(bytes)
export const bytes = (string) => new TextEncoder().encode(string)

/** What `promise` was rejected with. */
export async function rejection(promise) {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('it was not rejected')
}

export const code = async (promise) => (await rejection(promise)).code

/** The `detail` of the next event of this type; of the next that `fits`, if that is given. */
export function event(node, type, fits = () => true) {
  return new Promise((resolve) => {
    const listen = ({ detail }) => {
      if (!fits(detail)) return
      node.removeEventListener(type, listen)
      resolve(detail)
    }
    node.addEventListener(type, listen)
  })
}

/** What the peer sends back. */
export async function echo(peer, message, options) {
  const stream = await peer.openStream('/echo/1.0.0', options)
  const writer = stream.writable.getWriter()
  await writer.write(bytes(message))
  await writer.close()
  return new Response(stream.readable).text()
}
