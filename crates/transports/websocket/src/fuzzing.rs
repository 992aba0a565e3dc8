//! What the fuzzer runs of this crate: see `fuzz/` and CONTRIBUTING.md. There only in tests, which replay the corpora, and
//! under the fuzzer.
#![allow(clippy::expect_used, clippy::panic, reason = "a target reports by panicking")]

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::pipe::{MessagePipe, config};

/// A WebSocket behind its upgrade: any bytes are an end, an error or fewer bytes than they are, and what one end writes
/// the other reads. The first byte says in pieces of which length.
pub fn websocket_pipe(data: &[u8]) {
    for role in [Role::Server, Role::Client] {
        let (ours, mut theirs) = duplex(2 * data.len() + 1024);
        let mut pipe = socket(ours, role);
        theirs.write_all(data).now_or_never().expect("there is room").expect("the pipe is open");
        theirs.shutdown().now_or_never().expect("there is room").expect("the pipe is open");
        let mut read = Vec::new();
        // Pending if a pong or a close finds no room.
        let _ = pipe.read_to_end(&mut read).now_or_never();
        assert!(read.len() <= data.len(), "a frame is longer than what is in it");
    }

    let Some((length, data)) = data.split_first() else { return };
    // A frame has fewer than 16 bytes beside its content.
    let (ours, theirs) = duplex(17 * data.len() + 1024);
    let (mut writer, mut reader) = (socket(ours, Role::Client), socket(theirs, Role::Server));
    for piece in data.chunks(usize::from(*length).max(1)) {
        writer.write_all(piece).now_or_never().expect("there is room").expect("the pipe is open");
    }
    writer.flush().now_or_never().expect("there is room").expect("the pipe is open");
    let mut read = vec![0; data.len()];
    if !read.is_empty() {
        reader.read_exact(&mut read).now_or_never().expect("it has arrived").expect("the pipe is open");
    }
    assert_eq!(read, data);
}

fn socket<IO>(io: IO, role: Role) -> MessagePipe<IO>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(io, role, Some(config())).now_or_never();
    MessagePipe::new(socket.expect("there is nothing to wait for"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        peerloom_fuzz_corpus::replay("websocket_pipe", super::websocket_pipe);
    }
}
