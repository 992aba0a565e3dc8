//! What is done to a circuit's bytes before a relay has them.

use peerloom_core::{Connection, HandshakeError, Multiaddr, runtime::MaybeSend};
use peerloom_upgrade::{upgrade_inbound, upgrade_outbound};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Shared;

pub(super) trait Pipe: AsyncRead + AsyncWrite + Unpin + MaybeSend + 'static {}
impl<IO: AsyncRead + AsyncWrite + Unpin + MaybeSend + 'static> Pipe for IO {}

impl Shared {
    /// Makes a connection of a circuit that we asked for.
    pub(super) async fn secure_outbound<IO: Pipe>(
        &self,
        io: IO,
        address: Multiaddr,
    ) -> Result<Box<dyn Connection>, HandshakeError> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(key) = &self.config.private_network {
            return upgrade_outbound(privately(io, key)?, &self.keypair, address).await;
        }
        upgrade_outbound(io, &self.keypair, address).await
    }

    /// Makes a connection of a circuit that a relay has announced.
    pub(super) async fn secure_inbound<IO: Pipe>(
        &self,
        io: IO,
        address: Multiaddr,
    ) -> Result<Box<dyn Connection>, HandshakeError> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(key) = &self.config.private_network {
            return upgrade_inbound(privately(io, key)?, &self.keypair, address).await;
        }
        upgrade_inbound(io, &self.keypair, address).await
    }
}

/// A circuit is a connection as any other to go-libp2p and js-libp2p, which wrap it a second time inside of the connections to
/// the relay, which are private already. The spec says nothing of circuits.
#[cfg(not(target_arch = "wasm32"))]
fn privately<IO: Pipe>(
    io: IO,
    key: &peerloom_upgrade::pnet::PreSharedKey,
) -> Result<peerloom_upgrade::pnet::PrivatePipe<IO>, HandshakeError> {
    let mut nonce = [0; peerloom_upgrade::pnet::NONCE_LENGTH];
    getrandom::fill(&mut nonce).map_err(|error| HandshakeError::Invalid {
        step: "pnet",
        reason: format!("no randomness: {error}"),
    })?;
    Ok(peerloom_upgrade::pnet::PrivatePipe::new(io, key, nonce))
}
