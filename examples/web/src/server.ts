/** What the demo's web server says about the peer to connect to. */

export interface Server {
  peer: string
  addresses: string[]
}

/** Asks anew each time: the server may be back with other addresses. */
export async function fetchServer(): Promise<Server> {
  const response = await fetch('./peerloom.json', { cache: 'no-store' })
  if (!response.ok) throw new Error(`peerloom.json: ${response.status} ${response.statusText}`)
  return (await response.json()) as Server
}
