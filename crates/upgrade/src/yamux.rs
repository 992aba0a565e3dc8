//! Yamux: many streams in one ordered byte pipe, as a state machine.
//!
//! [`Session`] takes plaintext and time and gives plaintext and a next deadline. Who waits for a stream is told through
//! [`Waker`](std::task::Waker)s, which the session collects and its driver wakes.

mod frame;
mod receive;
mod session;
mod stream;
mod stream_calls;
mod transmit;
mod window;

pub use frame::{Flags, FrameError, GoAwayCode, HEADER_LENGTH, Header};
pub use session::{Events, Session, Violation};
pub use stream::StreamId;

/// What a remote can make a session hold. One place for all of it.
pub mod limits {
    use std::time::Duration;

    /// Streams that we have open at once; more wait in `open_stream`.
    pub const MAX_OUTBOUND_STREAMS: usize = 1024;
    /// Streams that the remote may have open at once; more are reset. Twice the outbound limit, because we may learn later
    /// than the remote that a stream is over, and a remote that counts as we do must not be punished for that.
    pub const MAX_INBOUND_STREAMS: usize = 2 * MAX_OUTBOUND_STREAMS;
    /// yamux spec, "ACK backlog": streams opened but not yet acknowledged. Ours wait; the remote's are reset.
    pub const ACK_BACKLOG: usize = 256;
    /// Every stream's window at first, in bytes; fixed by the spec, "Flow Control".
    pub const INITIAL_WINDOW: u32 = 256 * 1024;
    /// How far one stream's receive window grows, in bytes: 200 MiB/s at 80 ms.
    pub const MAX_STREAM_WINDOW: u32 = 16 * 1024 * 1024;
    /// By how much all receive windows of a session together may exceed their initial size, in bytes.
    pub const MAX_WINDOW_GROWTH: u32 = 64 * 1024 * 1024;
    /// Bytes received but not read by their streams' owners, over all streams. A stream that gets more is reset.
    pub const MAX_UNREAD: usize = 128 * 1024 * 1024;
    /// Bytes that a stream takes from its writer beyond what has been sent.
    pub const SEND_BUFFER: usize = 256 * 1024;
    /// Answers to pings that wait to be sent. The oldest are forgotten first: an honest remote has one ping under way.
    pub const MAX_PENDING_PONGS: usize = 8;
    /// Resets that wait to be sent. A remote that provokes more without reading them is cut off.
    pub const MAX_PENDING_RESETS: usize = 4096;
    /// After this long without a byte from the remote, it is asked whether it is there.
    pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
    /// After this long without an answer to that, it is gone.
    pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(30);
    /// How long a stream that nobody holds any more waits for the remote's end before it is reset.
    pub const LINGER: Duration = Duration::from_secs(30);
    /// How long closing a session waits for the remote to take what streams have still to send.
    pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
}
