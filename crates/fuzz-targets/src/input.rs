//! How targets read their bytes.

use bytes::Bytes;
use futures_util::FutureExt as _;

/// Pieces of `data`, cut where its first bytes say: `data` begins with how many cuts there are (up to 15), then how long
/// each piece is.
pub(crate) fn cut(data: &[u8]) -> Vec<Bytes> {
    let Some((count, data)) = data.split_first() else { return Vec::new() };
    let count = usize::from(count & 15).min(data.len());
    let (lengths, mut rest) = data.split_at(count);
    let mut pieces = Vec::with_capacity(count + 1);
    for length in lengths {
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*length)));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = after;
    }
    pieces.push(Bytes::copy_from_slice(rest));
    pieces
}

/// What a future gives that has nothing to wait for.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("natively there is nothing to wait for")
}
