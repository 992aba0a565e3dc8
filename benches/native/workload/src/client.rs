//! The commands of the dialing side, and their answers.
//!
//! | command | what it does | answer |
//! |---|---|---|
//! | `connect` | dials, and keeps the connection for what follows | `seconds` |
//! | `up STREAMS MILLIS` | sends on so many streams at once | `bytes`, `seconds` |
//! | `down STREAMS MILLIS` | the remote sends | the same |
//! | `cut STREAMS MILLIS` | the same, but what comes later does not count, and the connection is given up | the same |
//! | `streams COUNT` | one after the other: opens a stream, one byte there and back | `each`: seconds |
//! | `dials COUNT AT_ONCE` | dials and closes | `seconds` for all, `each` until it was established |
//! | `hold COUNT AT_ONCE` | dials, and keeps the connections to the end | the same |
//! | `race ADDRESS,…` | dials a peer at all of these, and closes | `seconds` until a byte was there and back on a stream |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::stream::{Wanted, download, open, upload};
use crate::{Connection, Stream as _, Subject};

pub(crate) struct Client<S: Subject> {
    subject: Arc<S>,
    address: String,
    connection: Option<Arc<S::Connection>>,
    held: Vec<S::Connection>,
}

pub(crate) async fn race(subject: impl Subject, addresses: &str) -> Result<Value> {
    let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
    let start = Instant::now();
    let connection = subject.dial_any(&addresses).await?;
    let mut stream = open(&connection, Wanted::Echo).await?;
    let seconds = start.elapsed().as_secs_f64();
    stream.finish().await?;
    connection.close().await?;
    Ok(json!({ "seconds": seconds }))
}

impl<S: Subject> Client<S> {
    pub(crate) fn new(subject: Arc<S>, address: String) -> Self {
        Self { subject, address, connection: None, held: Vec::new() }
    }

    pub(crate) async fn obey(&mut self, line: &str) -> Result<Value> {
        let mut words = line.split_whitespace();
        let command = words.next().context("an empty line")?;
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>()?;
        match (command, numbers.as_slice()) {
            ("connect", []) => self.connect().await,
            (way @ ("up" | "down" | "cut"), &[streams, millis]) => {
                self.transfer(way, streams, Duration::from_millis(millis)).await
            }
            ("streams", &[count]) => self.streams(count).await,
            ("dials", &[count, at_once]) => self.dials(count, at_once, false).await,
            ("hold", &[count, at_once]) => self.dials(count, at_once, true).await,
            _ => bail!("no such command"),
        }
    }

    async fn connect(&mut self) -> Result<Value> {
        let start = Instant::now();
        self.connection = Some(Arc::new(self.subject.dial(&self.address, 0).await?));
        Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
    }

    fn connection(&self) -> Result<&Arc<S::Connection>> {
        self.connection.as_ref().context("not connected")
    }

    async fn transfer(&mut self, way: &str, count: u64, duration: Duration) -> Result<Value> {
        let wanted = match way {
            "up" => Wanted::Upload,
            "down" => Wanted::Download(duration),
            // Longer than it will be read.
            _ => Wanted::Download(duration * 2),
        };
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(open(self.connection()?.as_ref(), wanted).await?);
        }
        let start = Instant::now();
        let until = (way == "cut").then_some(start + duration);
        let mut running = JoinSet::new();
        for stream in streams {
            running.spawn(async move {
                match wanted {
                    Wanted::Upload => upload(stream, duration).await,
                    _ => download(stream, until).await,
                }
            });
        }
        let mut bytes = 0;
        while let Some(done) = running.join_next().await {
            bytes += done??;
        }
        let seconds = start.elapsed().as_secs_f64();
        if way == "cut" {
            self.connection = None;
        }
        Ok(json!({ "bytes": bytes, "seconds": seconds }))
    }

    async fn streams(&self, count: u64) -> Result<Value> {
        let connection = self.connection()?;
        let mut each = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            let mut stream = open(connection.as_ref(), Wanted::Echo).await?;
            each.push(start.elapsed().as_secs_f64());
            stream.finish().await?;
        }
        Ok(json!({ "each": each }))
    }

    async fn dials(&mut self, count: u64, at_once: u64, hold: bool) -> Result<Value> {
        let count = usize::try_from(count)?;
        let start = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let mut running = JoinSet::new();
        for _ in 0..at_once {
            let (subject, address, next) = (self.subject.clone(), self.address.clone(), next.clone());
            running.spawn(async move {
                let (mut each, mut held) = (Vec::new(), Vec::new());
                loop {
                    // The first is what `connect` made.
                    let number = next.fetch_add(1, Ordering::Relaxed) + 1;
                    if number > count {
                        return anyhow::Ok((each, held));
                    }
                    let start = Instant::now();
                    let connection = subject.dial(&address, number).await?;
                    each.push(start.elapsed().as_secs_f64());
                    if hold {
                        held.push(connection);
                    } else {
                        connection.close().await?;
                    }
                }
            });
        }
        let mut all = Vec::new();
        while let Some(done) = running.join_next().await {
            let (each, held) = done??;
            all.extend(each);
            self.held.extend(held);
        }
        Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "each": all }))
    }
}
