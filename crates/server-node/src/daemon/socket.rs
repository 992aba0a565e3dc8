//! A client's socket, and the one at which clients come: TCP on loopback, or Unix.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::{Buf, Bytes, BytesMut};
use peerloom_core::runtime::sleep;
use socket2::{Domain, SockAddr, SockRef, TcpKeepalive, Type};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::address::LocalAddress;

/// What is read of a socket at once, at most.
const READ: usize = 64 * 1024;
/// How often it is asked whether a client that says nothing more is still there.
const GONE_CHECK: Duration = Duration::from_secs(2);
/// After so long a silence the system asks whether the other end of a TCP socket is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Until the client accepts another connection, if its backlog is full.
const BACKLOG_RETRY: Duration = Duration::from_millis(50);
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;
/// As long as another process may be about to bind the same path.
const BIND_TURN: Duration = Duration::from_millis(500);

/// A connected socket. Its two directions are independent.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to a client. While a Unix socket's backlog is full it waits; how long is up to the caller.
    pub(super) async fn connect(address: &LocalAddress) -> io::Result<Self> {
        match address {
            LocalAddress::Tcp(address) => Self::tcp(TcpStream::connect(address).await?),
            LocalAddress::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    // unlike TCP, where the system waits
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BACKLOG_RETRY).await,
                    outcome => return Ok(Self::Unix(outcome?)),
                }
            },
        }
    }

    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        // A client that is gone without having read everything is found by nothing else if we have nothing to write.
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        Ok(Self::Tcp(stream))
    }

    /// The next bytes, never none; `None` at the end of what the client has to say.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            match self {
                Self::Tcp(stream) => ready!(stream.poll_read_ready(cx))?,
                Self::Unix(stream) => ready!(stream.poll_read_ready(cx))?,
            }
            // Only now that there is something to read: an idle socket holds no buffer.
            let mut buffer = BytesMut::with_capacity(READ);
            let read = match self {
                Self::Tcp(stream) => stream.try_read_buf(&mut buffer),
                Self::Unix(stream) => stream.try_read_buf(&mut buffer),
            };
            match read {
                Ok(0) => return Poll::Ready(Ok(None)),
                Ok(_) => return Poll::Ready(Ok(Some(buffer.freeze()))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Ready when all of `data` is written, which is advanced as it is.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<()>> {
        while data.has_remaining() {
            match self {
                Self::Tcp(stream) => ready!(stream.poll_write_ready(cx))?,
                Self::Unix(stream) => ready!(stream.poll_write_ready(cx))?,
            }
            let written = match self {
                Self::Tcp(stream) => stream.try_write(data),
                Self::Unix(stream) => stream.try_write(data),
            };
            match written {
                Ok(written) => data.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lets the client read the end.
    pub(super) fn close_write(&self) -> io::Result<()> {
        self.as_ref().shutdown(std::net::Shutdown::Write)
    }

    /// Ends the socket in such a way that the client cannot take it for an orderly end: as a TCP reset. A Unix socket knows
    /// nothing of the kind; there the client reads the end, and what it writes fails.
    pub(super) fn reset(self) {
        if let Self::Tcp(_) = self {
            // If this fails the socket is over already.
            let _ = self.as_ref().set_linger(Some(Duration::ZERO));
        }
    }

    /// Ready once the client has let go of its socket altogether; to have closed its half is not enough.
    pub(super) async fn gone(&self) {
        loop {
            sleep(GONE_CHECK).await;
            let ready = match self {
                Self::Tcp(stream) => stream.ready(Interest::WRITABLE).await,
                Self::Unix(stream) => stream.ready(Interest::WRITABLE).await,
            };
            if ready.map_or(true, |ready| ready.is_write_closed()) {
                return;
            }
        }
    }

    fn as_ref(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }
}

/// Where clients come. A Unix socket's file goes with it.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Errors name the address.
    pub(super) async fn bind(address: &LocalAddress) -> anyhow::Result<Self> {
        let bound = match address {
            LocalAddress::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp).map_err(Into::into),
            LocalAddress::Unix(path) => bind_unix(path).await,
        };
        bound.with_context(|| format!("control {address}"))
    }

    /// With the port that the system chose, if it was to choose one.
    pub(super) fn address(&self) -> io::Result<LocalAddress> {
        match self {
            Self::Tcp(listener) => Ok(LocalAddress::Tcp(listener.local_addr()?)),
            Self::Unix(_, file) => Ok(LocalAddress::unix(&file.path)),
        }
    }

    /// Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Socket::tcp(listener.accept().await?.0),
            Self::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

async fn bind_unix(path: &Path) -> anyhow::Result<Listener> {
    let _turn = turn(path).await?;
    remove_stale(path).await?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    // Before anybody can connect: only who owns the node may drive it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())?;
    Ok(Listener::Unix(listener, file))
}

/// Keeps processes that bind the same path from taking each other's socket, which does not listen yet, for a stale one. Whoever may
/// read the directory can lock it, so that it is not waited for without an end.
async fn turn(path: &Path) -> anyhow::Result<fs::File> {
    let directory = path.parent().context("not the path of a file")?;
    let directory = fs::File::open(directory).with_context(|| directory.display().to_string())?;
    let locked = async {
        while directory.try_lock().is_err() {
            sleep(BACKLOG_RETRY).await;
        }
    };
    let _ = peerloom_core::runtime::timeout(BIND_TURN, locked).await;
    Ok(directory)
}

/// Removes the file of a socket at which nobody listens any more.
async fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !file.file_type().is_socket() {
        bail!("there is a file that is no socket");
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error.into()),
        // A full backlog is an error, too, and the sign of a listener.
        _ => bail!("another process listens there"),
    }
}

/// The file of a Unix socket, removed with this value.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: file.dev(), inode: file.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have put another file there since.
        let still = fs::symlink_metadata(&self.path);
        if still.is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
