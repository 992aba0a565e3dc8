//! The three commands of Redis that the tests need, in its protocol RESP 2.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use peerloom_core::runtime::Instant;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::TcpStream,
};

/// Between two attempts to connect: Redis may start at the same time as we.
const RETRY: Duration = Duration::from_millis(100);
/// Longer than any address.
const MAX_BULK_BYTES: usize = 64 * 1024;
/// BLPOP answers with a key and a value.
const MAX_ELEMENTS: usize = 16;

/// A connection to a Redis server.
pub(crate) struct Redis {
    io: BufStream<TcpStream>,
}

impl Redis {
    /// Connects to `host:port`, and tries that for `patience`.
    pub(crate) async fn connect(address: &str, patience: Duration) -> Result<Self> {
        let start = Instant::now();
        loop {
            match TcpStream::connect(address).await {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(Self { io: BufStream::new(socket) });
                }
                Err(error) if start.elapsed() >= patience => {
                    return Err(error).with_context(|| format!("no Redis at {address}"));
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Appends to the list at `key`.
    pub(crate) async fn push(&mut self, key: &str, value: &str) -> Result<()> {
        self.command(&["RPUSH", key, value]).await?;
        Ok(())
    }

    /// Takes the first element of the list at `key`, as soon as there is one.
    pub(crate) async fn pop(&mut self, key: &str, patience: Duration) -> Result<String> {
        let reply = self.command(&["BLPOP", key, &patience.as_secs().to_string()]).await?;
        reply.into_iter().nth(1).with_context(|| format!("nobody pushed to {key:?} in time"))
    }

    /// The strings of the reply, of which most commands have one.
    async fn command(&mut self, words: &[&str]) -> Result<Vec<String>> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.io.write_all(request.as_bytes()).await?;
        self.io.flush().await?;
        match self.line().await?.split_at_checked(1) {
            Some(("*", "-1")) => Ok(Vec::new()),
            Some(("*", count)) => {
                let count: usize = count.parse()?;
                ensure!(count <= MAX_ELEMENTS, "Redis sent an array of {count}");
                let mut strings = Vec::with_capacity(count);
                for _ in 0..count {
                    let line = self.line().await?;
                    let length = line.strip_prefix('$').context("Redis sent no string in an array")?;
                    strings.push(self.bulk(length.parse()?).await?);
                }
                Ok(strings)
            }
            Some(("+" | ":", simple)) => Ok(vec![simple.to_owned()]),
            Some(("-", error)) => bail!("Redis: {error}"),
            other => bail!("Redis sent {other:?}"),
        }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        (&mut self.io).take(MAX_BULK_BYTES as u64).read_line(&mut line).await?;
        Ok(line.strip_suffix("\r\n").context("Redis closed the connection")?.to_owned())
    }

    async fn bulk(&mut self, length: usize) -> Result<String> {
        ensure!(length <= MAX_BULK_BYTES, "Redis sent a string of {length} bytes");
        let mut bytes = vec![0; length];
        self.io.read_exact(&mut bytes).await?;
        ensure!(self.line().await?.is_empty(), "Redis sent more than it said");
        Ok(String::from_utf8(bytes)?)
    }
}
