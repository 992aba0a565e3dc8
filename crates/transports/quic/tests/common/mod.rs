//! Listeners that drive every handshake, and streams that come back.

// Not every test file uses all of it.
#![allow(dead_code)]

use bytes::Bytes;
use peerloom_core::{
    Connection, HandshakeError, Listener, ListenerEvent, Multiaddr, Protocol, StreamExt as _,
    runtime::{Task, spawn},
};
use tokio::sync::mpsc;

/// A listener that drives every handshake.
pub(crate) struct Server {
    pub(crate) address: Multiaddr,
    pub(crate) handshakes: mpsc::Receiver<Result<Box<dyn Connection>, HandshakeError>>,
    _task: Task,
}

impl Server {
    pub(crate) fn new(mut listener: Box<dyn Listener>) -> Self {
        let address = listener.addresses().remove(0);
        let (results, handshakes) = mpsc::channel(1024);
        let task = spawn(async move {
            let mut running: Vec<Task> = Vec::new();
            while let Ok(event) = listener.next().await {
                if let ListenerEvent::Incoming(incoming) = event {
                    let results = results.clone();
                    running.retain(|task| !task.is_finished());
                    running.push(spawn(async move {
                        let _ = results.send(incoming.handshake.await).await;
                    }));
                }
            }
        });
        Self { address, handshakes, _task: task }
    }

    pub(crate) async fn accept(&mut self) -> Box<dyn Connection> {
        self.handshakes.recv().await.unwrap().unwrap()
    }
}

/// The UDP port in an address.
pub(crate) fn port(address: &Multiaddr) -> u16 {
    let port = |protocol| match protocol {
        Protocol::Udp(port) => Some(port),
        _ => None,
    };
    address.protocols().find_map(port).unwrap()
}

/// Sends back what arrives on the next stream.
pub(crate) async fn echo(connection: &dyn Connection) {
    let mut stream = connection.accept_stream().await.unwrap();
    while let Some(chunk) = stream.read_chunk().await.unwrap() {
        stream.write_all(chunk).await.unwrap();
    }
    stream.close_write().await.unwrap();
}

/// Sends `data` on a new stream and expects it back.
pub(crate) async fn ask(connection: &dyn Connection, data: Bytes) {
    let stream = connection.open_stream().await.unwrap();
    let mut io = stream.into_io();
    let (mut read, mut write) = tokio::io::split(&mut io);
    let send = async {
        tokio::io::AsyncWriteExt::write_all(&mut write, &data).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut write).await.unwrap();
    };
    let receive = async {
        let mut back = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut read, &mut back).await.unwrap();
        assert!(back == data, "{} of {} bytes came back", back.len(), data.len());
    };
    tokio::join!(send, receive);
}
