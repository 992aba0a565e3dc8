// js-libp2p on Node as a dialer or listener of libp2p's test-plans.
import { quic } from '@chainsafe/libp2p-quic'
import { noise } from '@libp2p/noise'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { PemConverter, X509CertificateGenerator } from '@peculiar/x509'
import { readTest, report } from './contract.mjs'
import { createPinger, dialAndPing } from './pinger.mjs'
import { Redis } from './redis.mjs'

/** By the names of the contract: what it takes, and where to listen. */
const TRANSPORTS = {
  tcp: [tcp(), (ip) => `/ip4/${ip}/tcp/0`],
  ws: [webSockets(), (ip) => `/ip4/${ip}/tcp/0/ws`],
  wss: [webSockets({ https: await selfSigned() }), (ip) => `/ip4/${ip}/tcp/0/tls/ws`],
  'quic-v1': [quic(), (ip) => `/ip4/${ip}/udp/0/quic-v1`],
  'webrtc-direct': [webRTCDirect(), (ip) => `/ip4/${ip}/udp/0/webrtc-direct`],
}
const SECURITY = { noise: noise(), tls: tls() }

const test = readTest()
setTimeout(() => {
  console.error(`not done within ${test.milliseconds / 1000} s`)
  process.exit(1)
}, test.milliseconds)

// Nobody vouches for the certificates of these tests.
if (test.transport === 'wss') process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'
if (TRANSPORTS[test.transport] === undefined) throw new Error(`no transport ${test.transport}`)
const [transport, listen] = TRANSPORTS[test.transport]
const encrypter = SECURITY[test.security || 'noise']
if (encrypter === undefined) throw new Error(`no security ${test.security}`)
const redis = await Redis.connect(test.redis, test.milliseconds)
const node = await createPinger(transport, encrypter, test.isDialer ? [] : [listen(test.ip)])
if (test.isDialer) {
  console.log(report(test, await dialAndPing(node, await redis.pop(test.key, test.milliseconds))))
  process.exit()
}
const addresses = node.getMultiaddrs().map(String)
// Of 0.0.0.0, one that others can reach.
const reachable = addresses.find((address) => !address.startsWith('/ip4/127.')) ?? addresses[0]
await redis.push(test.key, reachable)

/** A certificate with its key, as Node's servers take them. */
async function selfSigned() {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await X509CertificateGenerator.createSelfSigned(
    { name: 'CN=localhost', keys, signingAlgorithm: algorithm },
    crypto,
  )
  const key = await crypto.subtle.exportKey('pkcs8', keys.privateKey)
  return { cert: certificate.toString('pem'), key: PemConverter.encode(key, 'PRIVATE KEY') }
}
