//! What libp2p carries in handshake messages: noise spec, "The libp2p Handshake Payload".

use peerloom_core::{Keypair, Multihash, ProtocolName, PublicKey};
use prost::Message as _;

use super::error::NoiseError;

/// Certificate hashes or muxers that a remote may name. Real peers send two or three.
const MAX_EXTENSION_ENTRIES: usize = 32;

const SIGNATURE_PREFIX: &[u8] = b"noise-libp2p-static-key:";

/// What the two sides tell each other under the protection of the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoiseExtensions {
    /// Of a WebTransport server: the hashes of the certificates that it uses now or next.
    pub webtransport_certhashes: Vec<Multihash>,
    /// Stream multiplexers by preference, for early negotiation.
    pub stream_muxers: Vec<ProtocolName>,
    /// Of a peer on WebRTC: whether it reads a stream's message together with its length from one message of the data channel
    /// even if that is long, as go-libp2p does not.
    pub webrtc_joined_lengths: bool,
}

/// The payload of our message: our identity key, its signature over our static key, and `extensions`.
pub(super) fn encode(identity: &Keypair, static_key: &[u8; 32], extensions: &NoiseExtensions) -> Vec<u8> {
    let extensions = NoiseExtensionsMessage {
        webtransport_certhashes: extensions
            .webtransport_certhashes
            .iter()
            .map(|hash| hash.as_bytes().to_vec())
            .collect(),
        stream_muxers: extensions.stream_muxers.iter().map(|name| name.as_str().to_owned()).collect(),
        webrtc_joined_lengths: extensions.webrtc_joined_lengths.then_some(true),
    };
    NoiseHandshakePayload {
        identity_key: Some(identity.public().encode_protobuf()),
        identity_sig: Some(identity.sign(&signed_message(static_key)).to_vec()),
        extensions: (extensions != NoiseExtensionsMessage::default()).then_some(extensions),
    }
    .encode_to_vec()
}

/// What a remote claims in its payload. Nothing of it may be used before the signature has been verified.
pub(super) struct Payload {
    pub(super) public_key: PublicKey,
    pub(super) signature: Vec<u8>,
    pub(super) extensions: NoiseExtensions,
}

pub(super) fn decode(payload: &[u8]) -> Result<Payload, NoiseError> {
    let message =
        NoiseHandshakePayload::decode(payload).map_err(|_| NoiseError::Payload("not a protobuf message"))?;
    let identity_key = message.identity_key.ok_or(NoiseError::Payload("identity_key is missing"))?;
    let signature = message.identity_sig.ok_or(NoiseError::Payload("identity_sig is missing"))?;
    let extensions = message.extensions.unwrap_or_default();
    if extensions.webtransport_certhashes.len() > MAX_EXTENSION_ENTRIES
        || extensions.stream_muxers.len() > MAX_EXTENSION_ENTRIES
    {
        return Err(NoiseError::Payload("too many extension entries"));
    }
    let webtransport_certhashes = extensions
        .webtransport_certhashes
        .iter()
        .map(|hash| {
            Multihash::from_bytes(hash).map_err(|_| NoiseError::Payload("malformed certificate hash"))
        })
        .collect::<Result<_, _>>()?;
    // A muxer that we cannot even name is one that we do not have.
    let stream_muxers = extensions.stream_muxers.iter().filter_map(|name| name.parse().ok()).collect();
    Ok(Payload {
        public_key: PublicKey::decode_protobuf(&identity_key)?,
        signature,
        extensions: NoiseExtensions {
            webtransport_certhashes,
            stream_muxers,
            webrtc_joined_lengths: extensions.webrtc_joined_lengths.unwrap_or_default(),
        },
    })
}

/// noise spec, "Static Key Authentication"
pub(super) fn signed_message(static_key: &[u8; 32]) -> Vec<u8> {
    [SIGNATURE_PREFIX, static_key].concat()
}

#[derive(Clone, PartialEq, prost::Message)]
struct NoiseExtensionsMessage {
    #[prost(bytes = "vec", repeated, tag = "1")]
    webtransport_certhashes: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "2")]
    stream_muxers: Vec<String>,
    // noise spec, "Noise Extensions": code points above 1024 are for experiments.
    #[prost(bool, optional, tag = "1712")]
    webrtc_joined_lengths: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NoiseHandshakePayload {
    #[prost(bytes = "vec", optional, tag = "1")]
    identity_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    identity_sig: Option<Vec<u8>>,
    #[prost(message, optional, tag = "4")]
    extensions: Option<NoiseExtensionsMessage>,
}
