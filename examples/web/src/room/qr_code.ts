/**
 * A link as a QR code, drawn as SVG.
 *
 * The package `qr` is by the author of @noble/hashes, small and without dependencies. Of what it exports only the encoder ends up
 * in the page.
 */
import encodeQR from 'qr'

/** The spec asks for four modules of quiet zone. */
const BORDER = 4

/** Dark on light in dark mode too: not every camera reads the inverse. */
export function qrCode(text: string): string {
  // A screen is never dirty or torn, so the least correction will do, and the modules stay large.
  const rows = encodeQR(text, 'raw', { ecc: 'low', border: BORDER })
  const size = rows.length
  const dark = rows.flatMap((row, y) => row.flatMap((module, x) => (module ? `M${x} ${y}h1v1h-1z` : [])))
  return `<svg viewBox="0 0 ${size} ${size}" shape-rendering="crispEdges" role="img" aria-label="QR code of the link">
    <rect width="${size}" height="${size}" fill="#fff"/><path d="${dark.join('')}" fill="#000"/></svg>`
}
