//! Noise messages on the wire after the handshake: noise spec, "Wire Format".

#![warn(clippy::arithmetic_side_effects)]

use super::{cipher::CipherState, error::NoiseError, primitives::TAG_LENGTH};

/// The most plaintext that fits into one frame, in bytes.
pub(crate) const MAX_PLAINTEXT: usize = u16::MAX as usize - TAG_LENGTH;

/// Appends to `output` one sealed frame with what `fill` appends, at most [`MAX_PLAINTEXT`]; nothing if that is nothing.
/// Returns whether there was something.
pub(crate) fn seal_frame(
    cipher: &mut CipherState,
    output: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>),
) -> Result<bool, NoiseError> {
    let start = output.len();
    output.extend_from_slice(&[0; 2]);
    let content = output.len();
    fill(output);
    if output.len() == content {
        output.truncate(start);
        return Ok(false);
    }
    output.extend_from_slice(&[0; TAG_LENGTH]);
    let (prefix, message) = output
        .get_mut(start..)
        .and_then(|frame| frame.split_first_chunk_mut::<2>())
        .ok_or(NoiseError::Truncated)?;
    let length = message.len();
    *prefix = u16::try_from(length)
        .map_err(|_| NoiseError::TooLong { length, limit: usize::from(u16::MAX) })?
        .to_be_bytes();
    cipher.seal_in_place(b"", message)?;
    Ok(true)
}

/// How many bytes the frame that `input` starts with has together with its length, once those two bytes are there.
pub(crate) fn frame_length(input: &[u8]) -> Option<usize> {
    let prefix = input.first_chunk::<2>()?;
    Some(usize::from(u16::from_be_bytes(*prefix)).saturating_add(2))
}
