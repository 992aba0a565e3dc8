// The contract of libp2p/test-plans, `transport-interop`, and of its successor in libp2p/unified-testing: environment variables
// in, the listener's address by way of Redis, one result on stdout.

const DEFAULT_SECONDS = 180

/** What the environment asks for. */
export function readTest(env = process.env) {
  // Names differ between the two, apart from their case.
  const unified = env.TRANSPORT !== undefined
  const get = (old, now) => env[unified ? now : old]
  if (unified && !env.TEST_KEY) throw new Error('TEST_KEY is not set')
  const transport = get('transport', 'TRANSPORT')
  if (!transport) throw new Error('transport is not set')
  const isDialer = get('is_dialer', 'IS_DIALER')
  if (!['true', 'false'].includes(isDialer)) throw new Error(`is_dialer is ${isDialer}`)
  return {
    transport,
    security: get('security', 'SECURE_CHANNEL'),
    muxer: get('muxer', 'MUXER'),
    isDialer: isDialer === 'true',
    /** Where the listener binds. */
    ip: get('ip', 'LISTENER_IP') ?? '0.0.0.0',
    redis: get('redis_addr', 'REDIS_ADDR') ?? 'redis:6379',
    /** Under which the listener leaves its address in Redis. */
    key: unified ? `${env.TEST_KEY}_listener_multiaddr` : 'listenerAddr',
    milliseconds: 1000 * Number(get('test_timeout_seconds', 'TEST_TIMEOUT_SECS') ?? DEFAULT_SECONDS),
    unified,
  }
}

/** What the dialer says on stdout: milliseconds from the dial to the answer of one ping, and of that ping alone. */
export function report({ unified }, latency) {
  const [handshake, ping] = [latency.handshake, latency.ping].map((time) => Number(time.toFixed(3)))
  return unified
    ? `latency:\n  handshake_plus_one_rtt: ${handshake}\n  ping_rtt: ${ping}\n  unit: ms`
    : // Spelled as the contract has it.
      JSON.stringify({ handshakePlusOneRTTMillis: handshake, pingRTTMilllis: ping })
}
