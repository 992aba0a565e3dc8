//! A client of the daemon: it writes and reads the protobuf of the proto by itself, so that a mistake in ours shows.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Command,
    time::Duration,
};

use peerloom_core::{Multiaddr, PeerId};

use crate::common::{PEERLOOM, Server};

/// Far more than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const IDENTIFY: u64 = 0;
pub(crate) const CONNECT: u64 = 1;
pub(crate) const STREAM_OPEN: u64 = 2;
pub(crate) const STREAM_HANDLER: u64 = 3;
pub(crate) const DHT: u64 = 4;
pub(crate) const LIST_PEERS: u64 = 5;
pub(crate) const CONNMANAGER: u64 = 6;
pub(crate) const DISCONNECT: u64 = 7;
pub(crate) const PUBSUB: u64 = 8;
pub(crate) const PEERSTORE: u64 = 9;

/// A daemon that listens on TCP and QUIC.
pub(crate) fn daemon(directory: &Path, options: &[&str]) -> Server {
    let mut command = Command::new(PEERLOOM);
    command.arg("daemon").args(options);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    Server::spawn(command, directory)
}

/// Both kinds of socket.
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// A control connection to `server`.
    pub(crate) fn control(server: &Server) -> Self {
        if let Some(path) = server.control.strip_prefix("/unix") {
            return Self::from(UnixStream::connect(path).unwrap());
        }
        let port = server.control.rsplit('/').next().unwrap().parse().unwrap();
        Self::from(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    pub(crate) fn shutdown(&self) {
        match self {
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
        }
        .unwrap();
    }

    pub(crate) fn set_write_timeout(&self, timeout: Duration) {
        match self {
            Self::Unix(socket) => socket.set_write_timeout(Some(timeout)),
            Self::Tcp(socket) => socket.set_write_timeout(Some(timeout)),
        }
        .unwrap();
    }

    pub(crate) fn read_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn read_some(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next message, without a byte of what follows it.
    pub(crate) fn message(&mut self) -> Message {
        let mut prefix = Vec::new();
        while prefix.last().is_none_or(|byte| byte & 0x80 != 0) {
            prefix.extend(self.read_some(1));
        }
        let (length, _) = varint(&prefix);
        Message::parse(&self.read_some(length as usize))
    }

    /// Sends a request and reads the answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Answer {
        self.write_all(&framed(request)).unwrap();
        self.message().into()
    }

    /// A request that must succeed.
    pub(crate) fn done(&mut self, request: &[u8]) -> Message {
        let answer = self.ask(request);
        answer.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A request that must fail.
    pub(crate) fn refused(&mut self, request: &[u8]) -> String {
        self.ask(request).expect_err("an error")
    }
}

/// What is answered: the response, or the message of an error.
type Answer = Result<Message, String>;

impl From<Message> for Answer {
    fn from(response: Message) -> Self {
        match response.number(1) {
            0 => Ok(response),
            _ => Err(response.message(2).text(1)),
        }
    }
}

impl From<UnixStream> for Socket {
    fn from(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::Unix(socket)
    }
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::Tcp(socket)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(buffer),
            Self::Tcp(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(bytes),
            Self::Tcp(socket) => socket.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a client takes streams.
pub(crate) enum Taker {
    Unix(UnixListener, String),
    Tcp(TcpListener),
}

impl Taker {
    pub(crate) fn unix(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        Self::Unix(UnixListener::bind(&path).unwrap(), format!("/unix{}", path.display()))
    }

    pub(crate) fn tcp() -> Self {
        Self::Tcp(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(crate) fn address(&self) -> String {
        match self {
            Self::Unix(_, address) => address.clone(),
            Self::Tcp(listener) => format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()),
        }
    }

    /// The next stream and what is told of it: peer, address and protocol.
    pub(crate) fn take(&self) -> (Socket, Message) {
        let mut socket = match self {
            Self::Unix(listener, _) => Socket::from(listener.accept().unwrap().0),
            Self::Tcp(listener) => Socket::from(listener.accept().unwrap().0),
        };
        let info = socket.message();
        (socket, info)
    }
}

pub(crate) fn peer_id(server: &Server) -> Vec<u8> {
    server.peer.parse::<PeerId>().unwrap().to_bytes()
}

pub(crate) fn address_bytes(address: &str) -> Vec<u8> {
    address.parse::<Multiaddr>().unwrap().as_bytes().to_vec()
}

pub(crate) fn request(kind: u64) -> Vec<u8> {
    number(1, kind)
}

/// To a peer that may be at `addresses`.
pub(crate) fn connect(peer: &[u8], addresses: &[String], seconds: u64) -> Vec<u8> {
    let addresses = addresses.iter().flat_map(|address| field(2, &address_bytes(address)));
    let inner: Vec<u8> = field(1, peer).into_iter().chain(addresses).chain(number(3, seconds)).collect();
    [request(CONNECT), field(2, &inner)].concat()
}

pub(crate) fn open(peer: &[u8], protocols: &[&str]) -> Vec<u8> {
    let protocols: Vec<u8> = protocols.iter().flat_map(|name| field(2, name.as_bytes())).collect();
    [request(STREAM_OPEN), field(3, &[field(1, peer), protocols].concat())].concat()
}

pub(crate) fn handle(address: &str, protocols: &[&str]) -> Vec<u8> {
    let protocols: Vec<u8> = protocols.iter().flat_map(|name| field(2, name.as_bytes())).collect();
    [request(STREAM_HANDLER), field(4, &[field(1, &address_bytes(address)), protocols].concat())].concat()
}

pub(crate) fn disconnect(peer: &[u8]) -> Vec<u8> {
    [request(DISCONNECT), field(7, &field(1, peer))].concat()
}

pub(crate) fn tag(kind: u64, peer: &[u8], tag: &str, weight: u64) -> Vec<u8> {
    let inner = [number(1, kind), field(2, peer), field(3, tag.as_bytes()), number(4, weight)].concat();
    [request(CONNMANAGER), field(6, &inner)].concat()
}

/// Of kind 1, its protocols, or 2, its addresses.
pub(crate) fn peer_store(kind: u64, peer: &[u8]) -> Vec<u8> {
    [request(PEERSTORE), field(9, &[number(1, kind), field(2, peer)].concat())].concat()
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [encode_varint(message.len() as u64), message.to_vec()].concat()
}

pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [encode_varint(field << 3), encode_varint(value)].concat()
}

pub(crate) fn field(field: u64, bytes: &[u8]) -> Vec<u8> {
    [encode_varint(field << 3 | 2), framed(bytes)].concat()
}

fn encode_varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn varint(bytes: &[u8]) -> (u64, &[u8]) {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let value = bytes[..=end].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    (value, &bytes[end + 1..])
}

/// A protobuf message: by the number of the field, its values.
#[derive(Debug, Default)]
pub(crate) struct Message {
    numbers: HashMap<u64, u64>,
    bytes: HashMap<u64, Vec<Vec<u8>>>,
}

impl Message {
    pub(crate) fn parse(mut rest: &[u8]) -> Self {
        let mut message = Self::default();
        while !rest.is_empty() {
            let (tag, after) = varint(rest);
            let (value, after) = varint(after);
            match tag & 7 {
                0 => {
                    message.numbers.insert(tag >> 3, value);
                    rest = after;
                }
                2 => {
                    let (bytes, after) = after.split_at(value as usize);
                    message.bytes.entry(tag >> 3).or_default().push(bytes.to_vec());
                    rest = after;
                }
                other => panic!("wire type {other}"),
            }
        }
        message
    }

    pub(crate) fn number(&self, field: u64) -> u64 {
        self.numbers[&field]
    }

    pub(crate) fn all(&self, field: u64) -> Vec<Vec<u8>> {
        self.bytes.get(&field).cloned().unwrap_or_default()
    }

    pub(crate) fn bytes(&self, field: u64) -> Vec<u8> {
        self.all(field).into_iter().next().unwrap_or_else(|| panic!("no field {field}"))
    }

    pub(crate) fn message(&self, field: u64) -> Self {
        Self::parse(&self.bytes(field))
    }

    pub(crate) fn text(&self, field: u64) -> String {
        String::from_utf8(self.bytes(field)).unwrap()
    }

    pub(crate) fn addresses(&self, field: u64) -> Vec<String> {
        let text = |bytes: Vec<u8>| Multiaddr::from_bytes(&bytes).unwrap().to_string();
        self.all(field).into_iter().map(text).collect()
    }
}
