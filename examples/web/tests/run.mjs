// Runs the tests of the demo, `npm test`, or `node tests/run.mjs`; or the files that it is given. PEERLOOM_BIN says where the server is.
//
// Firefox never dials WebRTC to loopback, and two pages never meet there. On a machine that has nothing else, everything runs in a network namespace with one more
// interface, which is gone with the last process in it. Where that is not permitted, the tests that need it are skipped.
import { spawnSync } from 'node:child_process'
import { networkInterfaces } from 'node:os'
import { fileURLToPath } from 'node:url'

// Both ends of a cable, which every kernel that has containers has, and a default route: Firefox takes the address to dial from off
// that.
const WITH_INTERFACE = `ip link set lo up && ip link add peerloom0 type veth peer name peerloom1 &&
  ip address add 10.99.0.1/24 dev peerloom0 && ip link set peerloom0 up && ip link set peerloom1 up &&
  ip route add default dev peerloom0 && exec "$@"`

const given = process.argv.slice(2)
const own = ['demo.test.mjs', 'room.test.mjs', 'rust.test.mjs'].map((file) =>
  fileURLToPath(new URL(file, import.meta.url)),
)
const tests = given.some((argument) => argument.endsWith('.mjs')) ? [] : own
// One after the other: browsers that take turns have a machine to themselves.
const options = ['--test', '--test-concurrency=1', '--test-reporter=spec']
let command = [process.execPath, ...options, ...given, ...tests]

const onlyLoopback = Object.values(networkInterfaces())
  .flat()
  .every((address) => address.internal)
if (onlyLoopback) {
  const enter = [
    'unshare',
    ...(process.getuid?.() === 0 ? [] : ['--map-root-user']),
    '--net',
    'sh',
    '-c',
    WITH_INTERFACE,
    'sh',
  ]
  const [program, ...prefix] = enter
  if (spawnSync(program, [...prefix, 'true'], { stdio: 'ignore' }).status === 0)
    command = [...enter, ...command]
}
const [program, ...rest] = command
const { status, error } = spawnSync(program, rest, { stdio: 'inherit' })
if (error) console.error(error.message)
process.exit(status ?? 1)
