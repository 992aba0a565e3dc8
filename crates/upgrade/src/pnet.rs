//! Private networks: libp2p spec, pnet/Private-Networks-PSK-V1.md.
//!
//! Whoever has the network's key can talk to its nodes, and nobody else: before anything else of libp2p passes over a
//! pipe, both sides send 24 random bytes, and from then on every byte is XORed with XSalsa20's key stream of the key and
//! those bytes. That is no authentication, and need not be: bytes that come from outside the network make no sense, and the
//! handshake that runs inside refuses them. It is also no secret, against those who have the key.

#![warn(clippy::arithmetic_side_effects)]

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::{Zeroize as _, Zeroizing};

/// How errors name this layer.
pub(crate) const STEP: &str = "pnet";

/// Length of a nonce in bytes.
pub const NONCE_LENGTH: usize = 24;

const KEY_LENGTH: usize = 32;
const CODEC: &[u8] = b"/key/swarm/psk/1.0.0/";
/// What a node that has no key begins with: libp2p's negotiation.
const MULTISTREAM: &[u8] = b"\x13/multistream/1.0";
/// Bytes encrypted at once; more waits for the next write.
const MAX_UNSENT: usize = 128 * 1024;

/// The key that all nodes of a private network share.
#[derive(Clone, PartialEq, Eq)]
pub struct PreSharedKey(Zeroizing<[u8; KEY_LENGTH]>);

impl PreSharedKey {
    /// The key with these bytes, which must come from a cryptographically secure source.
    pub fn from_bytes(bytes: [u8; KEY_LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads a key file, the `swarm.key` of other implementations: `/key/swarm/psk/1.0.0/`, then how the key is written
    /// (`/base16/`, `/base64/` or `/bin/`), then the key, each on a line of its own.
    pub fn from_key_file(content: &[u8]) -> Result<Self, KeyFileError> {
        let (codec, rest) = split_line(content).ok_or(KeyFileError::Codec)?;
        if codec != CODEC {
            return Err(KeyFileError::Codec);
        }
        let (encoding, rest) = split_line(rest).ok_or(KeyFileError::Encoding)?;
        let key = Zeroizing::new(match encoding {
            b"/base16/" => {
                HEXLOWER_PERMISSIVE.decode(rest.trim_ascii()).map_err(|_| KeyFileError::Malformed)?
            }
            b"/base64/" => {
                let text = rest.trim_ascii();
                let padded = BASE64.decode(text).or_else(|_| BASE64_NOPAD.decode(text));
                padded.map_err(|_| KeyFileError::Malformed)?
            }
            b"/bin/" => binary(rest).to_vec(),
            _ => return Err(KeyFileError::Encoding),
        });
        let bytes = <[u8; KEY_LENGTH]>::try_from(key.as_slice());
        bytes.map(Self::from_bytes).map_err(|_| KeyFileError::Length { length: key.len() })
    }

    /// The key as a key file, `/base16/`.
    pub fn to_key_file(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(HEXLOWER.encode(&*self.0));
        Zeroizing::new(format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", key.as_str()))
    }
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreSharedKey")
    }
}

/// Why a key file was refused. Never says what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The first line is another.
    #[error("first line is not /key/swarm/psk/1.0.0/")]
    Codec,
    /// The second line is another.
    #[error("second line is none of /base16/, /base64/ and /bin/")]
    Encoding,
    /// The key is not written as the second line says.
    #[error("key is not written as the second line says")]
    Malformed,
    /// The key is too short or too long.
    #[error("key of {length} bytes, not 32")]
    Length {
        /// Its length in bytes.
        length: usize,
    },
}

/// A line without its end, and what follows it.
fn split_line(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = content.splitn(2, |byte| *byte == b'\n');
    let line = parts.next()?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), parts.next().unwrap_or_default()))
}

/// Some editors end every file with a line feed.
fn binary(rest: &[u8]) -> &[u8] {
    match rest.strip_suffix(b"\n") {
        Some(key) if key.len() == KEY_LENGTH => key,
        _ => rest,
    }
}

/// A pipe inside a private network.
///
/// Our nonce goes with the first bytes written, so that it costs a dialer no round trip, or before the first byte is waited
/// for: other implementations' dialers send nothing else before they have it.
pub struct PrivatePipe<IO> {
    io: IO,
    key: PreSharedKey,
    encryption: XSalsa20,
    decryption: Decryption,
    /// Our nonce at first, then what is encrypted. The first `sent` bytes are sent.
    unsent: Vec<u8>,
    sent: usize,
}

enum Decryption {
    /// Until the remote's nonce is there; so many bytes of it are.
    Nonce {
        nonce: [u8; NONCE_LENGTH],
        length: usize,
    },
    Cipher(XSalsa20),
}

impl<IO> PrivatePipe<IO> {
    /// `nonce` must come from a cryptographically secure source, fresh for each pipe.
    pub fn new(io: IO, key: &PreSharedKey, nonce: [u8; NONCE_LENGTH]) -> Self {
        Self {
            io,
            encryption: XSalsa20::new(&(*key.0).into(), &nonce.into()),
            key: key.clone(),
            decryption: Decryption::Nonce { nonce: [0; NONCE_LENGTH], length: 0 },
            unsent: nonce.to_vec(),
            sent: 0,
        }
    }
}

impl<IO: AsyncWrite + Unpin> PrivatePipe<IO> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent = self.sent.saturating_add(count),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for PrivatePipe<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.decryption {
                Decryption::Cipher(cipher) => {
                    let filled = buffer.filled().len();
                    ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
                    let fresh = buffer.filled_mut().get_mut(filled..).unwrap_or_default();
                    return Poll::Ready(cipher.try_apply_keystream(fresh).map_err(io::Error::other));
                }
                Decryption::Nonce { nonce, length } if *length == NONCE_LENGTH => {
                    if nonce.starts_with(MULTISTREAM) {
                        let reason = "the remote is in no private network";
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                    }
                    this.decryption =
                        Decryption::Cipher(XSalsa20::new(&(*this.key.0).into(), &(*nonce).into()));
                    // From here on both directions have all that they need.
                    this.key.0.zeroize();
                }
                Decryption::Nonce { .. } => {
                    if let Poll::Ready(sent) = this.poll_send(cx) {
                        sent?;
                        // Best effort: pipes of which anybody waits for a flush are flushed by their writers.
                        let _ = Pin::new(&mut this.io).poll_flush(cx)?;
                    }
                    let Decryption::Nonce { nonce, length } = &mut this.decryption else { continue };
                    let mut rest = ReadBuf::new(nonce.get_mut(*length..).unwrap_or_default());
                    ready!(Pin::new(&mut this.io).poll_read(cx, &mut rest))?;
                    match rest.filled().len() {
                        0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                        count => *length = length.saturating_add(count),
                    }
                }
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PrivatePipe<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // Nothing is encrypted on top of what the pipe did not take; only our nonce waits for company.
        if this.sent > 0 || this.unsent.len() > NONCE_LENGTH {
            ready!(this.poll_send(cx))?;
        }
        let taken = data.get(..MAX_UNSENT).unwrap_or(data);
        let start = this.unsent.len();
        this.unsent.extend_from_slice(taken);
        let fresh = this.unsent.get_mut(start..).unwrap_or_default();
        this.encryption.try_apply_keystream(fresh).map_err(io::Error::other)?;
        // What the pipe does not take now it takes before the next write, or when it is flushed.
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        // An idle connection holds no buffer.
        self.unsent = Vec::new();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<IO> fmt::Debug for PrivatePipe<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivatePipe").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
