//! Bare TCP (`tcp`), each stream of which is a connection, and bare QUIC (`quic`) as quinn's examples have it: what the layers
//! under ours can do. Neither knows who the other side is, and TCP protects nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream, ServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use workload::{CHUNK_LENGTH, Connection, Stream, Subject};

const ALPN: &[u8] = b"bench";

fn main() -> Result<()> {
    workload::main(|transport| match transport {
        "tcp" => Ok(Raw::Tcp),
        "quic" => Ok(Raw::Quic(Endpoint::client((std::net::Ipv4Addr::UNSPECIFIED, 0).into())?)),
        other => bail!("no transport {other}"),
    })
}

enum Raw {
    Tcp,
    /// The endpoint to dial from.
    Quic(Endpoint),
}

impl Subject for Raw {
    type Connection = RawConnection;

    async fn listen(&self, ip: &str) -> Result<String> {
        let any_port = SocketAddr::new(ip.parse()?, 0);
        match self {
            Self::Tcp => {
                let listener = TcpListener::bind(any_port).await?;
                let address = listener.local_addr()?;
                tokio::spawn(async move {
                    while let Ok((socket, _)) = listener.accept().await {
                        serve(RawStream::tcp(socket));
                    }
                });
                Ok(address.to_string())
            }
            Self::Quic(_) => {
                let endpoint = Endpoint::server(server_config()?, any_port)?;
                let address = endpoint.local_addr()?;
                tokio::spawn(async move {
                    while let Some(incoming) = endpoint.accept().await {
                        tokio::spawn(async move {
                            let connection = incoming.await?;
                            while let Ok((send, recv)) = connection.accept_bi().await {
                                serve(Ok(RawStream::quic(send, recv)));
                            }
                            anyhow::Ok(())
                        });
                    }
                });
                Ok(address.to_string())
            }
        }
    }

    async fn dial(&self, address: &str, _number: usize) -> Result<RawConnection> {
        let address = address.parse()?;
        Ok(match self {
            Self::Tcp => RawConnection::Tcp { address, _connected: TcpStream::connect(address).await? },
            Self::Quic(endpoint) => {
                RawConnection::Quic(endpoint.connect_with(client_config()?, address, "bench")?.await?)
            }
        })
    }
}

/// A bare connection that is closed before it says anything is one that was only dialed.
fn serve(stream: Result<RawStream>) {
    tokio::spawn(async move { workload::serve(stream?).await });
}

enum RawConnection {
    /// The connection is all there is to dialing; streams connect for themselves.
    Tcp {
        address: SocketAddr,
        _connected: TcpStream,
    },
    Quic(quinn::Connection),
}

impl Connection for RawConnection {
    type Stream = RawStream;

    async fn open(&self) -> Result<RawStream> {
        match self {
            Self::Tcp { address, .. } => RawStream::tcp(TcpStream::connect(address).await?),
            Self::Quic(connection) => {
                let (send, recv) = connection.open_bi().await?;
                Ok(RawStream::quic(send, recv))
            }
        }
    }

    async fn close(self) -> Result<()> {
        if let Self::Quic(connection) = self {
            connection.close(0_u32.into(), b"");
        }
        Ok(())
    }
}

enum RawStream {
    Tcp { read: OwnedReadHalf, write: OwnedWriteHalf, buffer: Vec<u8> },
    Quic { send: SendStream, recv: RecvStream, chunk: Bytes },
}

impl RawStream {
    fn tcp(socket: TcpStream) -> Result<Self> {
        socket.set_nodelay(true)?;
        let (read, write) = socket.into_split();
        Ok(Self::Tcp { read, write, buffer: vec![0; CHUNK_LENGTH] })
    }

    fn quic(send: SendStream, recv: RecvStream) -> Self {
        Self::Quic { send, recv, chunk: Bytes::new() }
    }
}

impl Stream for RawStream {
    async fn send(&mut self, data: Bytes) -> Result<()> {
        match self {
            Self::Tcp { write, .. } => Ok(write.write_all(&data).await?),
            Self::Quic { send, .. } => Ok(send.write_chunk(data).await?),
        }
    }

    async fn finish(&mut self) -> Result<()> {
        match self {
            Self::Tcp { write, .. } => Ok(write.shutdown().await?),
            Self::Quic { send, .. } => Ok(send.finish()?),
        }
    }

    async fn receive(&mut self) -> Result<&[u8]> {
        match self {
            Self::Tcp { read, buffer, .. } => {
                let count = read.read(buffer).await?;
                buffer.get(..count).context("more than the buffer holds")
            }
            Self::Quic { recv, chunk, .. } => {
                let next = recv.read_chunk(usize::MAX, true).await?;
                *chunk = next.map(|next| next.bytes).unwrap_or_default();
                Ok(chunk)
            }
        }
    }
}

/// The cipher that ours takes first where the processor has AES: the bench is not to compare ciphers.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}

fn server_config() -> Result<ServerConfig> {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["bench".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?)))
}

fn client_config() -> Result<ClientConfig> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

/// Checks that the server has the key of its certificate, and nothing else.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
