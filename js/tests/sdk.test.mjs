// The package in real browsers, as an application uses it, against a real server.
import assert from 'node:assert/strict'
import { networkInterfaces } from 'node:os'
import { after, before, describe, test } from 'node:test'
import { browsers } from '../../examples/web/tests/support/browsers.mjs'
import { PeerloomServer } from '../../examples/web/tests/support/peerloom_server.mjs'
import { runInPage } from './in_page.mjs'
import { startSite } from './site.mjs'

const MIB = 1024 * 1024

const TRANSPORTS = {
  webtransport: /\/webtransport\//,
  'webrtc-direct': /\/webrtc-direct\//,
  websocket: /\/ws\//,
}

// Firefox never dials WebRTC to loopback.
const outside = Object.values(networkInterfaces())
  .flat()
  .some((address) => !address.internal)

for (const { name: browserName, missing, open } of browsers()) {
  describe(browserName, { skip: missing }, () => {
    let browser
    let server
    let site
    let page

    before(async () => {
      server = await PeerloomServer.start()
      site = await startSite(
        () => server.kill(),
        (name) => (name.startsWith('_dnsaddr.') ? recordsOf(name.slice('_dnsaddr.'.length), server) : []),
      )
      browser = await open()
      page = await browser.newPage(site.url)
    })
    after(async () => {
      const uncaught = await page?.evaluate(() => window.uncaught)
      await browser?.close()
      site?.close()
      await server?.close()
      assert.deepEqual(uncaught, [])
    })

    const inPage = (name, ...values) => runInPage(page, name, ...values)

    test('an identity is kept, made once for pages that start together, or given', async () => {
      const { ids, refused } = await inPage('identities')
      const [a, b, ephemeral, given] = ids
      assert.deepEqual(a, b)
      assert.match(a.id, /^12D3KooW\w{44}$/)
      assert.notEqual(ephemeral.id, a.id)
      assert.deepEqual(
        ids.map(({ kept }) => kept),
        [true, true, false, true],
      )
      assert.equal(given.id, '12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7')
      assert.equal(refused, 'ERR_INVALID_ARGUMENT')
    })

    test('what cannot be is refused with a code that says what it is', async () => {
      assert.deepEqual(await inPage('refusals'), {
        malformed: 'ERR_INVALID_ARGUMENT',
        tooLong: 'ERR_INVALID_ARGUMENT',
        noPeerId: 'ERR_INVALID_ARGUMENT',
        noAddress: 'ERR_INVALID_ARGUMENT',
        transport: 'ERR_UNSUPPORTED_ADDRESS',
        unknownPeer: 'ERR_NO_ADDRESSES',
        notConnected: 'ERR_NOT_CONNECTED',
        protocolName: 'ERR_INVALID_ARGUMENT',
        handledTwice: 'ERR_ALREADY_HANDLED',
        aborted: 'ERR_ABORTED',
        closed: 'ERR_NODE_CLOSED',
      })
    })

    test('of several addresses of one peer, one that works here is found', async () => {
      const useless = ['/ip4/127.0.0.1/tcp/1', '/ip4/127.0.0.1/tcp/1/ws'].map(
        (address) => `${address}/p2p/${server.peer}`,
      )
      const { id, transport } = await inPage('dialedOf', [...useless, ...server.addresses])
      assert.equal(id, server.peer)
      assert.ok(transport in TRANSPORTS, transport)
    })

    test('a name is resolved by DNS over HTTPS, if the application says by which server', async () => {
      const peer = `/p2p/${server.peer}`
      const { id, codes } = await inPage(
        'dialedByName',
        `${site.url}dns-query`,
        `/dnsaddr/first.example${peer}`,
        {
          unknown: '/dnsaddr/unknown.example',
          endless: '/dnsaddr/endless.example',
          otherPeer: `/dnsaddr/first.example/p2p/${PeerloomServer.otherPeerId()}`,
          tooLong: `/dnsaddr/${'a'.repeat(64)}.example`,
        },
      )
      assert.equal(id, server.peer)
      assert.deepEqual(codes, {
        unknown: 'ERR_NO_ADDRESSES',
        endless: 'ERR_NO_ADDRESSES',
        otherPeer: 'ERR_NO_ADDRESSES',
        tooLong: 'ERR_INVALID_ARGUMENT',
        notConfigured: 'ERR_UNSUPPORTED_ADDRESS',
        noServer: 'ERR_UNREACHABLE',
      })
    })

    const reachable = () => server.addresses.find((address) => TRANSPORTS.websocket.test(address))

    test('a gate is asked about every step of a dial', async () => {
      const address = reachable()
      const outcome = await inPage('gateAsked', address)
      const without = address.slice(0, address.indexOf('/p2p/'))
      assert.deepEqual(outcome, {
        asked: [
          ['dial', server.peer, true],
          ['address', address, true],
          ['connect', { peer: server.peer, address: without, direction: 'outbound' }, true],
        ],
        echo: 'through the gate',
      })
    })

    test('what a gate refuses is not dialed, and the error says so', async () => {
      const { late, givenUp, timeout, ...outcomes } = await inPage('gateRefuses', reachable())
      const says = {
        peer: `dial of ${server.peer} refused: the connection gate says no`,
        address: `dial of ${reachable()} refused: the connection gate says no`,
        noAnswer: `dial of ${server.peer} refused: the connection gate says no`,
        thrown: `dial of ${server.peer} refused: the list is not loaded`,
      }
      for (const [step, { code, message, failures, peers }] of Object.entries(outcomes)) {
        assert.equal(code, 'ERR_DENIED', step)
        if (says[step]) assert.equal(message, says[step])
        assert.deepEqual(failures, step === 'thrown' ? ['the list is not loaded'] : [], step)
        assert.equal(peers, 0, step)
      }
      assert.match(outcomes.connection.message, /^connection to \S+ at \S+ refused/)
      assert.equal(late.code, 'ERR_DENIED')
      assert.match(late.message, /gave no answer within 50 ms$/)
      assert.deepEqual([late.aborted, late.failures], [true, []])
      assert.deepEqual(givenUp, { code: 'ERR_ABORTED', aborted: true })
      assert.equal(timeout, 'ERR_INVALID_ARGUMENT')
    })

    test('a gate keeps out who comes in', async () => {
      const refused = { code: 'ERR_DENIED', peer: true, throughRelay: true, asked: true, connected: false }
      assert.deepEqual(await inPage('gateInside', reachable()), { mayAccept: refused, mayConnect: refused })
    })

    test('rules hold at once, and close what they deny', async () => {
      assert.deepEqual(await inPage('rules', reachable()), {
        codes: {
          nonsense: 'ERR_INVALID_ARGUMENT',
          closed: 'ERR_CONNECTION_CLOSED',
          peer: 'ERR_DENIED',
          address: 'ERR_DENIED',
          everyAddress: 'ERR_DENIED',
          everybodyElse: 'ERR_DENIED',
        },
        stays: 'still here',
        again: true,
      })
    })

    for (const [transport, pattern] of Object.entries(TRANSPORTS)) {
      const skip =
        browserName === 'Firefox' && transport === 'webrtc-direct' && !outside
          ? 'Firefox dials WebRTC only to other addresses than loopback, and this machine has none'
          : false

      describe(`${browserName}, ${transport}`, { skip }, () => {
        const address = () =>
          server.addresses.find(
            (address) => pattern.test(address) && !(outside && address.startsWith('/ip4/127.')),
          )

        test('tells of peers that come and go, and of who they are', async () => {
          const found = await inPage('tellsOfPeers', address())
          assert.deepEqual(found.found, [{ id: server.peer, transport, direction: 'outbound' }])
          assert.match(found.agentVersion, /^peerloom\//)
          assert.ok(found.protocols.includes('/echo/1.0.0'))
          assert.ok(found.roundTrip >= 0 && found.roundTrip < 10_000, `${found.roundTrip}`)
          assert.equal(found.left, 0)
          const kinds = found.events.map(([kind]) => kind)
          const closing = ['connection:close', 'peer:disconnect']
          assert.deepEqual(kinds, [...closing, 'connection:open', 'peer:connect', ...closing])
          assert.ok(found.events.every(([, id]) => id === server.peer))
        })

        test('brings a file there and back unharmed', async () => {
          const { sent, received } = await inPage('echoes', address(), 4 * MIB)
          assert.deepEqual(received, sent)
        })

        test('refuses a server that is another peer than the one dialed', async () => {
          const outcome = await inPage('wrongPeer', address(), PeerloomServer.otherPeerId())
          assert.deepEqual(outcome, { code: 'ERR_WRONG_PEER', ours: true, names: true })
        })

        test('a dial that is aborted fails with the reason, and the next one works', async () => {
          const outcome = await inPage('abortedDial', address())
          assert.deepEqual(outcome, { code: 'ERR_ABORTED', name: 'AbortError', cause: true, echo: 'again' })
        })

        test('a protocol that the peer does not handle is refused', async () => {
          assert.deepEqual(await inPage('unsupportedProtocol', address()), {
            first: 'ERR_PROTOCOL_NOT_SUPPORTED',
            several: 'ERR_PROTOCOL_NOT_SUPPORTED',
            chosen: '/echo/1.0.0',
          })
        })

        test('an aborted stream ends both directions and nothing else', async () => {
          assert.deepEqual(await inPage('abortedStream', address()), {
            read: 'ERR_STREAM_RESET',
            write: 'ERR_STREAM_RESET',
            echo: 'still here',
          })
        })

        test('a cancelled readable ends nothing else', async () => {
          assert.equal(await inPage('cancelledReadable', address()), 'still here')
        })

        // A browser cannot hold a data channel back, so there a stream that is not read is reset in the end.
        if (transport !== 'webrtc-direct') {
          test('a stream that is not read makes the writer wait', async () => {
            const { taken, roundTrip } = await inPage('untilFull', address())
            assert.ok(taken < 64 * MIB, `${taken}`)
            assert.ok(roundTrip >= 0)
          })
        }

        test('a stream takes buffers and nothing else', async () => {
          assert.equal(await inPage('wrongChunks', address()), 'TypeError')
        })

        test('chunks belong to the page', async () => {
          assert.deepEqual(await inPage('ownChunks', address()), { sent: 'mine', moved: 'mine' })
        })

        test('streams and connections end with the block that uses them', async () => {
          assert.equal(await inPage('disposed', address()), 0)
        })

        test('a closed connection ends its streams', async () => {
          assert.deepEqual(await inPage('closedConnection', address()), {
            read: 'ERR_CONNECTION_CLOSED',
            open: 'ERR_CONNECTION_CLOSED',
          })
        })
      })
    }

    test('a server that is killed ends what waits for it', async () => {
      const address = server.addresses.find((address) => TRANSPORTS.websocket.test(address))
      const outcome = await inPage('lostServer', address, '/kill')
      assert.deepEqual(outcome, { read: 'ERR_CONNECTION_CLOSED', gone: true })
    })
  })
}

/** One name leads to another, and that to the server's addresses; one leads to itself. */
function recordsOf(name, server) {
  const records = {
    'first.example': [`/dnsaddr/second.example/p2p/${server.peer}`],
    'second.example': server.addresses,
    'endless.example': ['/dnsaddr/endless.example', '/dnsaddr/endless.example'],
  }
  return ['v=spf1 -all', ...(records[name] ?? []).map((address) => `dnsaddr=${address}`)]
}
