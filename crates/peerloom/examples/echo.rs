//! What comes in goes out.
//!
//! ```console
//! $ cargo run -p peerloom --example echo
//! /ip4/192.0.2.7/udp/41234/quic-v1/p2p/12D3KooW…
//! …
//! $ cargo run -p peerloom --example echo -- /ip4/192.0.2.7/udp/41234/quic-v1/p2p/12D3KooW… hello
//! hello
//! ```
//!
//! An address that names a peer is dialed, any other is listened on; without one it listens on any port.

use anyhow::{Result, bail};
use peerloom::{Multiaddr, ProtocolName, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split};

const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => serve(None).await,
        [address] => serve(Some(address.parse()?)).await,
        [address, text] => send(address.parse()?, text).await,
        _ => bail!("usage: echo [ADDRESS] | echo ADDRESS TEXT"),
    }
}

async fn serve(address: Option<Multiaddr>) -> Result<()> {
    let builder = peerloom::builder().handle(ECHO, async |incoming| {
        let (mut reader, mut writer) = split(incoming.stream.into_io());
        if copy(&mut reader, &mut writer).await.is_ok() {
            let _ = writer.shutdown().await;
        }
    });
    let node = match address {
        Some(address) => builder.listen(address).start().await?,
        None => builder.port(0).start().await?,
    };
    for address in node.listen_addresses() {
        println!("{address}");
    }
    tokio::signal::ctrl_c().await?;
    node.close().await;
    Ok(())
}

async fn send(address: Multiaddr, text: &str) -> Result<()> {
    let node = peerloom::start().await?;
    let connection = node.dial(address).await?;
    let mut stream = node.open_stream(&connection, &[ECHO]).await?.into_io();
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("{answer}");
    node.close().await;
    Ok(())
}
