//! Files from one machine to another.
//!
//! ```console
//! $ cargo run -p peerloom --example file_transfer -- receive DIRECTORY
//! /ip4/192.0.2.7/udp/41234/quic-v1/p2p/12D3KooW…
//! …
//! $ cargo run -p peerloom --example file_transfer -- send /ip4/192.0.2.7/udp/41234/quic-v1/p2p/12D3KooW… FILE
//! 1048576 bytes sent
//! ```

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use peerloom::{Multiaddr, NegotiatedStream, ProtocolName, StreamExt as _, StreamIo};
use tokio::{
    fs,
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
};

/// The sender writes the length of the name, the name and the file, and closes its half; the receiver answers with how many
/// bytes it has stored. Numbers are big-endian: the first has two bytes, the second eight.
const FILE: ProtocolName = ProtocolName::from_static("/peerloom-example/file/1.0.0");

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["receive", directory] => serve(directory, None).await,
        ["receive", directory, address] => serve(directory, Some(address.parse()?)).await,
        ["send", address, file] => send(address.parse()?, Path::new(file)).await,
        _ => bail!("usage: file_transfer receive DIRECTORY [ADDRESS] | file_transfer send ADDRESS FILE"),
    }
}

async fn serve(directory: &str, address: Option<Multiaddr>) -> Result<()> {
    let directory = directory.to_owned();
    let builder = peerloom::builder().handle(FILE, move |incoming| {
        let (directory, peer) = (directory.clone(), incoming.connection.peer);
        async move {
            match receive(incoming.stream.into_io(), Path::new(&directory)).await {
                Ok(name) => println!("{name} of {peer}"),
                Err(error) => eprintln!("a file of {peer} did not arrive: {error:#}"),
            }
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

async fn receive(mut stream: StreamIo<NegotiatedStream>, directory: &Path) -> Result<String> {
    let mut name = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut name).await?;
    let name = String::from_utf8(name)?;
    // Never out of the directory, whatever a stranger says.
    ensure!(Path::new(&name).file_name() == Some(name.as_ref()), "{name:?} is no file's name");
    let path = directory.join(&name);
    let mut file = fs::File::create_new(&path).await.with_context(|| path.display().to_string())?;
    let stored = async {
        let length = copy(&mut stream, &mut file).await?;
        file.sync_all().await?;
        stream.write_u64(length).await?;
        stream.shutdown().await
    };
    if let Err(error) = stored.await {
        fs::remove_file(&path).await?;
        return Err(error.into());
    }
    Ok(name)
}

async fn send(address: Multiaddr, path: &Path) -> Result<()> {
    let mut file = fs::File::open(path).await.with_context(|| path.display().to_string())?;
    let name = path.file_name().and_then(|name| name.to_str()).context("the file has no name")?;

    let node = peerloom::start().await?;
    let connection = node.dial(address).await?;
    let mut stream = node.open_stream(&connection, &[FILE]).await?.into_io();
    stream.write_u16(name.len().try_into()?).await?;
    stream.write_all(name.as_bytes()).await?;
    let sent = copy(&mut file, &mut stream).await?;
    stream.shutdown().await?;
    let stored = stream.read_u64().await.context("the file was not taken")?;
    ensure!(stored == sent, "{stored} of {sent} bytes are stored");
    println!("{sent} bytes sent");
    node.close().await;
    Ok(())
}
