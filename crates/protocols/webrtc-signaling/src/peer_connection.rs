//! What signaling needs of WebRTC: [`PeerConnection`], which a browser and a native library implement.

use peerloom_core::{
    Connection, Multiaddr, PublicKey,
    runtime::{BoxFuture, MaybeSend, MaybeSync},
};

/// Which side of the exchange we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalingRole {
    /// Dials: opens the signaling stream and sends the offer.
    Offerer,
    /// Is dialed: sends the answer.
    Answerer,
}

/// Makes WebRTC connections.
pub trait PeerConnectionFactory: MaybeSend + MaybeSync + 'static {
    /// A new one that has done nothing yet. The error is for people: no WebRTC here, no socket, ….
    fn create(&self, role: SignalingRole) -> Result<Box<dyn PeerConnection>, String>;
}

/// A WebRTC connection in the making. Dropping it closes it.
///
/// One role's methods are called once each, in the order of the exchange; [`next`](Self::next) between and after them. The remote's
/// descriptions and candidates are bounded in size and number and otherwise as the remote sent them: unchecked. Errors are for
/// people, in the library's or browser's own words.
pub trait PeerConnection: MaybeSend + 'static {
    /// Makes the SDP offer, which becomes the local description. It has a data channel labelled `init`, which exists so that
    /// there is something to gather candidates for; [`into_connection`](Self::into_connection) closes it.
    fn create_offer(&mut self) -> BoxFuture<'_, Result<String, String>>;

    /// Takes the remote's SDP offer and makes the answer, which becomes the local description. The remote's `init` channel is
    /// not a stream, and is the remote's to close: js-libp2p waits for it to open first.
    fn accept_offer(&mut self, offer: String) -> BoxFuture<'_, Result<String, String>>;

    /// Takes the remote's SDP answer.
    fn accept_answer(&mut self, answer: String) -> BoxFuture<'_, Result<(), String>>;

    /// Takes a candidate of the remote: the JSON of an `RTCIceCandidateInit`. Called only once the remote's description is
    /// set. An error means that this one candidate is of no use.
    fn add_candidate(&mut self, candidate: String) -> BoxFuture<'_, Result<(), String>>;

    /// What happens next. Cancel-safe; nothing is lost between calls. After [`PeerConnectionEvent::Failed`] nothing more
    /// happens.
    fn next(&mut self) -> BoxFuture<'_, PeerConnectionEvent>;

    /// The connection to `remote`, after [`PeerConnectionEvent::Connected`]. Data channels that the remote has opened in the
    /// meantime are its first streams. `address` is what [`Connection::remote_address`] says.
    fn into_connection(self: Box<Self>, remote: PublicKey, address: Multiaddr) -> Box<dyn Connection>;
}

/// What a [`PeerConnection`] reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerConnectionEvent {
    /// A local candidate for the remote: the JSON of an `RTCIceCandidateInit`.
    Candidate(String),
    /// There will be no more candidates.
    GatheringDone,
    /// ICE and DTLS are done: data channels can be opened.
    Connected,
    /// No connection will come of it, or there was one and it is gone. Why, for people.
    Failed(String),
}
