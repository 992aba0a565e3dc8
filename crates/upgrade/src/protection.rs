//! What keeps the bytes of a connection secret and whole between its driver and its pipe.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{
    noise::{self, CipherState, NoiseError, TAG_LENGTH, frame_length},
    plaintexts::Plaintexts,
};

pub(crate) enum Protection {
    /// Noise frames, sealed where they are written.
    Noise { sealing: CipherState, opening: CipherState },
    /// Nothing more: the pipe is TLS.
    #[cfg(not(target_arch = "wasm32"))]
    Pipe,
}

impl Protection {
    /// Appends to `output` what `fill` appends, at most [`noise::MAX_PLAINTEXT`], protected; nothing if that is nothing.
    /// Returns whether there was something.
    pub(crate) fn seal(
        &mut self,
        output: &mut Vec<u8>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<bool, NoiseError> {
        match self {
            Self::Noise { sealing, .. } => noise::seal_frame(sealing, output, fill),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Pipe => {
                let before = output.len();
                fill(output);
                Ok(output.len() > before)
            }
        }
    }

    /// Takes the next plaintext off `input`, if it is there as a whole.
    pub(crate) fn open(
        &mut self,
        input: &mut BytesMut,
        plaintexts: &mut Plaintexts,
    ) -> Result<Option<Bytes>, NoiseError> {
        match self {
            Self::Noise { opening, .. } => {
                let Some(length) = frame_length(input) else { return Ok(None) };
                let Some(frame) = input.get(2..length) else { return Ok(None) };
                let plaintext_length = frame.len().saturating_sub(TAG_LENGTH);
                let mut plaintext = plaintexts.buffer(plaintext_length);
                plaintext.resize(plaintext_length, 0);
                opening.open_into(b"", frame, &mut plaintext)?;
                input.advance(length);
                Ok(Some(plaintexts.hand_out(plaintext)))
            }
            #[cfg(not(target_arch = "wasm32"))]
            Self::Pipe if input.is_empty() => Ok(None),
            // A copy, because streams get slices of it, and these would keep the whole large buffer alive.
            #[cfg(not(target_arch = "wasm32"))]
            Self::Pipe => {
                let mut plaintext = plaintexts.buffer(input.len());
                plaintext.clear();
                plaintext.extend_from_slice(input);
                input.clear();
                Ok(Some(plaintexts.hand_out(plaintext)))
            }
        }
    }

    /// How many bytes are missing of the message that `input` begins with, as far as that is known.
    pub(crate) fn missing(&self, input: &[u8]) -> usize {
        match self {
            Self::Noise { .. } => frame_length(input).unwrap_or(0).saturating_sub(input.len()),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Pipe => 0,
        }
    }
}
