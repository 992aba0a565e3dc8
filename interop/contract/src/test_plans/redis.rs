//! As much of Redis' protocol (RESP2) as one list needs.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// The list through which a listener tells its address.
const ADDRESS_KEY: &str = "listenerAddr";
/// Between attempts to reach a server that may not have started yet.
const RETRY: Duration = Duration::from_millis(100);

pub(crate) struct Redis(BufReader<TcpStream>);

impl Redis {
    /// Tries until there is a server.
    pub(crate) async fn connect(address: &str) -> Result<Self> {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(Self(BufReader::new(stream))),
                Err(error) => {
                    eprintln!("no Redis at {address} yet: {error}");
                    sleep(RETRY).await;
                }
            }
        }
    }

    pub(crate) async fn publish_address(&mut self, address: &str) -> Result<()> {
        self.send(&["RPUSH", ADDRESS_KEY, address]).await?;
        let reply = self.line().await?;
        if !reply.starts_with(':') {
            bail!("Redis: {reply}");
        }
        Ok(())
    }

    pub(crate) async fn wait_for_address(&mut self) -> Result<String> {
        self.send(&["BLPOP", ADDRESS_KEY, "0"]).await?;
        // Which list it was, and what was in it.
        let reply = self.line().await?;
        if reply != "*2" {
            bail!("Redis: {reply}");
        }
        self.string().await?;
        self.string().await
    }

    async fn send(&mut self, words: &[&str]) -> Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.write_all(request.as_bytes()).await?;
        Ok(())
    }

    async fn string(&mut self) -> Result<String> {
        let line = self.line().await?;
        let length = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok());
        let length = length.with_context(|| format!("Redis: {line}"))?;
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).await?;
        self.line().await?;
        Ok(String::from_utf8(text)?)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            bail!("Redis has closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }
}
