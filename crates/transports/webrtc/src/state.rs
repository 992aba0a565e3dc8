//! What the task and the streams of a connection share: the WebRTC connection, and a libp2p stream for each channel.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use peerloom_core::{
    ConnectionError, StreamError,
    webrtc_stream::{MAX_PAYLOAD_BYTES, channel_messages},
};
use tokio::sync::Notify;

use crate::{
    halves::{Halves, ReadOutcome, WriteState},
    ice::agent::Gathered,
    limits,
    peer_connection::{ChannelId, End, Event, HANDSHAKE_CHANNEL, PeerConnection},
    sockets::Senders,
};

/// The smallest part of a write that is worth a message of its own, if more is waiting.
const MIN_PAYLOAD: usize = 1024;

/// A connection, shared by its task, its handle and its streams.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The connection's task.
    pub(crate) driver: AtomicWaker,
    pub(crate) senders: Senders,
    /// Told of everything that has no waker of its own: connected, streams to accept, room to open one, the end.
    pub(crate) changed: Notify,
}

/// A stream of a connection, by a number that is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamKey(u64);

pub(crate) struct State {
    pub(crate) connection: PeerConnection,
    streams: HashMap<StreamKey, Entry>,
    by_channel: HashMap<ChannelId, StreamKey>,
    next: u64,
    to_accept: VecDeque<StreamKey>,
    handshake: Option<StreamKey>,
    connected: bool,
    /// Of a negotiated connection: what the remote is to be told.
    gathered: VecDeque<Gathered>,
    /// Writers that wait for room.
    blocked: Vec<StreamKey>,
    /// Streams that wait for the remote to acknowledge a FIN or to close the channel, and until when.
    lingering: BTreeSet<(Instant, StreamKey)>,
    unread: usize,
    send_target: usize,
    /// Whether the remote reads a long message and its length from one message of a channel.
    joins_lengths: bool,
    /// Since when the remote's window has been closed without anything being read.
    stalled: Option<Instant>,
    /// By when the connection shall be closed, once that was asked for.
    closing: Option<Instant>,
    end: Option<End>,
    error: Option<Arc<ConnectionError>>,
    wakers: Vec<Waker>,
    notify: bool,
}

struct Entry {
    /// `None` once the channel is gone.
    channel: Option<ChannelId>,
    halves: Halves,
    reader: Option<Waker>,
    writer: Option<Waker>,
    blocked: bool,
    has_handle: bool,
    /// The remote closes the channel.
    closing: bool,
    lingers_until: Option<Instant>,
}

impl Shared {
    pub(crate) fn new(connection: PeerConnection, senders: Senders, send_target: usize) -> Arc<Self> {
        let state = Mutex::new(State::new(connection, send_target));
        Arc::new(Self { state, driver: AtomicWaker::new(), senders, changed: Notify::new() })
    }

    /// Runs `work` on the state, lets it react to what happened, and wakes whom that concerns.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = work(&mut state);
        self.release(state);
        result
    }

    /// Wakers run outside of the lock: what they wake may want it.
    fn release(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        let notify = std::mem::take(&mut state.notify);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        if notify {
            self.changed.notify_waiters();
        }
    }

    /// Waits until `check` says something, looking again whenever anything has changed.
    pub(crate) async fn wait<T>(&self, mut check: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(result) = self.with(&mut check) {
                return result;
            }
            changed.await;
        }
    }
}

impl State {
    fn new(connection: PeerConnection, send_target: usize) -> Self {
        Self {
            connection,
            streams: HashMap::new(),
            by_channel: HashMap::new(),
            next: 0,
            to_accept: VecDeque::new(),
            handshake: None,
            connected: false,
            gathered: VecDeque::new(),
            blocked: Vec::new(),
            lingering: BTreeSet::new(),
            unread: 0,
            send_target,
            joins_lengths: false,
            stalled: None,
            closing: None,
            end: None,
            error: None,
            wakers: Vec::new(),
            notify: false,
        }
    }

    /// Lets the connection's events take effect. Call after anything was done to [`connection`](Self::connection).
    pub(crate) fn react(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Connected => {
                    if self.connection.has_handshake_channel() {
                        self.handshake = Some(self.insert(HANDSHAKE_CHANNEL, true));
                    }
                    self.connected = true;
                    self.notify = true;
                }
                Event::Gathered(gathered) => {
                    self.gathered.push_back(gathered);
                    self.notify = true;
                }
                Event::Opened(channel) => self.remote_opened(now, channel),
                Event::Readable(channel) => {
                    if let Some(key) = self.by_channel.get(&channel).copied() {
                        self.pull(now, key);
                        self.wake_reader(key);
                    }
                }
                Event::Closing(channel) => {
                    if let Some(key) = self.by_channel.get(&channel).copied() {
                        if let Some(entry) = self.streams.get_mut(&key) {
                            entry.halves.channel_closing();
                            entry.closing = true;
                        }
                        self.wake_writer(key);
                        self.settle(now, key);
                    }
                }
                Event::Closed(channel) => self.channel_closed(channel),
                Event::Acknowledged => self.unblock(),
                Event::Over(end) => self.end(end),
            }
        }
    }

    /// Does what is due by the clock.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.connection.poll_timeout().is_some_and(|due| due <= now) {
            self.connection.handle_timeout(now);
        }
        self.react(now);
        while let Some(first) = self.lingering.first().copied().filter(|(due, _)| *due <= now) {
            self.lingering.remove(&first);
            self.close_channel(now, first.1);
        }
        self.reset_stalled(now);
        let flushed = self.connection.outstanding() == 0;
        if self.closing.is_some_and(|due| flushed || due <= now) {
            self.close_now(now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let stalled = self.stalled.and_then(|since| since.checked_add(limits::STALLED_STREAM_TIMEOUT));
        let lingering = self.lingering.first().map(|(due, _)| *due);
        [self.connection.poll_timeout(), lingering, stalled, self.closing].into_iter().flatten().min()
    }

    /// Why the connection is over, if it is.
    pub(crate) fn error(&self) -> Option<Arc<ConnectionError>> {
        self.error.clone()
    }

    /// The same in detail.
    pub(crate) fn end_reason(&self) -> Option<End> {
        self.end.clone()
    }

    /// The stream of the handshake channel, once connected.
    pub(crate) fn take_handshake(&mut self) -> Option<StreamKey> {
        self.handshake.take()
    }

    /// Whether streams can be opened.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// What the remote of a negotiated connection is to be told.
    pub(crate) fn take_gathered(&mut self) -> Option<Gathered> {
        self.gathered.pop_front()
    }

    /// A stream that the remote has opened.
    pub(crate) fn accept(&mut self) -> Option<StreamKey> {
        let key = self.to_accept.pop_front()?;
        if let Some(entry) = self.streams.get_mut(&key) {
            entry.has_handle = true;
        }
        Some(key)
    }

    /// Opens a stream, if the remote allows another.
    pub(crate) fn open(&mut self, now: Instant) -> Option<StreamKey> {
        let channel = self.connection.open(now)?;
        Some(self.insert(channel, true))
    }

    pub(crate) fn read(
        &mut self,
        now: Instant,
        key: StreamKey,
        waker: &Waker,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        loop {
            let Some(entry) = self.streams.get_mut(&key) else { return Poll::Ready(Err(self.lost())) };
            match entry.halves.read() {
                ReadOutcome::Chunk(chunk) => {
                    self.unread = self.unread.saturating_sub(chunk.len());
                    // What waits below may come up now, and the remote may send more.
                    self.pull(now, key);
                    return Poll::Ready(Ok(Some(chunk)));
                }
                ReadOutcome::End => return Poll::Ready(Ok(None)),
                ReadOutcome::Reset(code) => {
                    return Poll::Ready(Err(match &self.error {
                        Some(error) if code == 0 => StreamError::ConnectionLost(error.clone()),
                        _ => StreamError::Reset { code },
                    }));
                }
                ReadOutcome::Empty => {
                    if self.pull_one(now, key) {
                        continue;
                    }
                    if let Some(error) = &self.error {
                        return Poll::Ready(Err(StreamError::ConnectionLost(error.clone())));
                    }
                    if let Some(entry) = self.streams.get_mut(&key) {
                        store(&mut entry.reader, waker);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    pub(crate) fn write(
        &mut self,
        now: Instant,
        key: StreamKey,
        data: &mut Bytes,
        waker: &Waker,
    ) -> Poll<Result<(), StreamError>> {
        if let Err(error) = self.check_write(key) {
            return Poll::Ready(Err(error));
        }
        let Some((entry, channel)) = self.streams.get(&key).and_then(|entry| Some((entry, entry.channel?)))
        else {
            return Poll::Ready(Err(self.lost()));
        };
        let mut taken = false;
        while !data.is_empty() {
            let room = self.send_target.saturating_sub(self.connection.outstanding());
            if room < MIN_PAYLOAD.min(data.len()) {
                break;
            }
            let mut part = data.split_to(data.len().min(room).min(MAX_PAYLOAD_BYTES));
            let frame = entry.halves.encode(&mut part);
            for message in channel_messages(&frame, self.joins_lengths) {
                if !self.connection.send(now, channel, &frame.slice_ref(message)) {
                    return Poll::Ready(Err(self.lost()));
                }
            }
            taken = true;
        }
        if taken || data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(entry) = self.streams.get_mut(&key) {
            store(&mut entry.writer, waker);
            if !std::mem::replace(&mut entry.blocked, true) {
                self.blocked.push(key);
            }
        }
        Poll::Pending
    }

    /// From now on long messages go out joined to their lengths: the remote reads such.
    pub(crate) fn join_lengths(&mut self) {
        self.joins_lengths = true;
    }

    /// Whether the stream may be written.
    pub(crate) fn check_write(&self, key: StreamKey) -> Result<(), StreamError> {
        if let Some(error) = &self.error {
            return Err(StreamError::ConnectionLost(error.clone()));
        }
        if self.closing.is_some() {
            return Err(StreamError::ConnectionLost(Arc::new(ConnectionError::ClosedLocally)));
        }
        match self.streams.get(&key).map(|entry| entry.halves.write_state()) {
            Some(WriteState::Open) => Ok(()),
            Some(WriteState::Closed) => Err(StreamError::WriteClosed),
            Some(WriteState::Reset(code)) => Err(StreamError::Reset { code }),
            None => Err(self.lost()),
        }
    }

    pub(crate) fn finish(&mut self, now: Instant, key: StreamKey) -> Result<(), StreamError> {
        let Some(entry) = self.streams.get_mut(&key) else { return Err(self.lost()) };
        match (entry.halves.write_state(), &self.error) {
            (WriteState::Open, Some(error)) => return Err(StreamError::ConnectionLost(error.clone())),
            (WriteState::Open, None) => entry.halves.finish(),
            (WriteState::Closed, _) => return Ok(()),
            (WriteState::Reset(code), _) => return Err(StreamError::Reset { code }),
        }
        self.settle(now, key);
        Ok(())
    }

    pub(crate) fn reset(&mut self, now: Instant, key: StreamKey, code: u32) {
        if let Some(entry) = self.streams.get_mut(&key) {
            let before = entry.halves.unread_bytes();
            entry.halves.reset(code);
            let discarded = before.saturating_sub(entry.halves.unread_bytes());
            self.unread = self.unread.saturating_sub(discarded);
            self.wake_reader(key);
            self.wake_writer(key);
            self.settle(now, key);
        }
    }

    /// The user has let go of the stream.
    pub(crate) fn drop_stream(&mut self, now: Instant, key: StreamKey) {
        let Some(entry) = self.streams.get_mut(&key) else { return };
        entry.has_handle = false;
        (entry.reader, entry.writer) = (None, None);
        self.unread = self.unread.saturating_sub(entry.halves.unread_bytes());
        entry.halves.drop_handle();
        if entry.channel.is_none() || self.error.is_some() {
            self.streams.remove(&key);
            return;
        }
        self.settle(now, key);
        self.linger(now, key, limits::FIN_ACK_TIMEOUT);
        self.pull(now, key);
    }

    /// Closes the connection as soon as everything is sent.
    pub(crate) fn close_soon(&mut self, now: Instant) {
        if self.closing.is_none() && self.error.is_none() {
            self.closing = now.checked_add(limits::CLOSE_TIMEOUT);
            let keys: Vec<_> = self.streams.keys().copied().collect();
            keys.into_iter().for_each(|key| self.wake_writer(key));
            self.notify = true;
        }
    }

    /// Whether [`close_soon`](Self::close_soon) was called.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    pub(crate) fn close_now(&mut self, now: Instant) {
        self.connection.close(now);
        self.react(now);
    }

    /// The connection's task is gone, and with it the connection.
    pub(crate) fn abandon(&mut self) {
        if self.error.is_none() {
            self.end(End::Lost("the connection's task has ended".to_owned()));
        }
    }

    fn insert(&mut self, channel: ChannelId, has_handle: bool) -> StreamKey {
        let key = StreamKey(self.next);
        self.next = self.next.wrapping_add(1);
        let entry = Entry {
            channel: Some(channel),
            halves: Halves::default(),
            reader: None,
            writer: None,
            blocked: false,
            has_handle,
            closing: false,
            lingers_until: None,
        };
        self.streams.insert(key, entry);
        self.by_channel.insert(channel, key);
        key
    }

    fn remote_opened(&mut self, now: Instant, channel: ChannelId) {
        let key = self.insert(channel, false);
        if self.to_accept.len() < limits::ACCEPT_BACKLOG && self.closing.is_none() {
            self.to_accept.push_back(key);
            self.notify = true;
        } else {
            self.reset(now, key, 0);
        }
    }

    /// Moves messages of a stream up, as far as the buffers go.
    fn pull(&mut self, now: Instant, key: StreamKey) {
        loop {
            let Some(entry) = self.streams.get(&key) else { return };
            let room = entry.halves.unread_bytes() < limits::STREAM_RECEIVE_BUFFER
                && self.unread < limits::CONNECTION_RECEIVE_BUFFER;
            // The first message of a reader that waits goes up in any case: others may have filled the buffers.
            if !(room || entry.halves.discards()) || !self.pull_one(now, key) {
                return;
            }
        }
    }

    /// Moves one message up. False if there was none.
    fn pull_one(&mut self, now: Instant, key: StreamKey) -> bool {
        let Some(entry) = self.streams.get_mut(&key) else { return false };
        let Some(channel) = entry.channel else { return false };
        let Some(message) = self.connection.read(now, channel) else { return false };
        self.stalled = None;
        let before = entry.halves.unread_bytes();
        let received = entry.halves.receive(message);
        let after = entry.halves.unread_bytes();
        self.unread = self.unread.saturating_add(after).saturating_sub(before);
        if let Err(error) = received {
            tracing::debug!(channel, %error, "stream reset");
            self.reset(now, key, 0);
            return false;
        }
        self.wake_writer_if_ended(key);
        self.settle(now, key);
        true
    }

    /// Sends flags that wait and closes the channel if neither side needs it any more.
    fn settle(&mut self, now: Instant, key: StreamKey) {
        let Some(entry) = self.streams.get_mut(&key) else { return };
        let Some(channel) = entry.channel else { return };
        while let Some(flag) = entry.halves.pop_flag() {
            if !self.connection.send(now, channel, &flag) {
                break;
            }
        }
        if !entry.halves.is_done() {
            return;
        }
        if entry.halves.is_reset_by_us() && !entry.closing {
            self.linger(now, key, limits::RESET_TIMEOUT);
        } else {
            self.close_channel(now, key);
        }
    }

    /// Gives the remote some time, unless it was given some already.
    fn linger(&mut self, now: Instant, key: StreamKey, time: Duration) {
        let Some(entry) = self.streams.get_mut(&key) else { return };
        if entry.channel.is_some() && entry.lingers_until.is_none() {
            entry.lingers_until = now.checked_add(time);
            self.lingering.extend(entry.lingers_until.map(|due| (due, key)));
        }
    }

    fn close_channel(&mut self, now: Instant, key: StreamKey) {
        let Some(entry) = self.streams.get_mut(&key) else { return };
        let Some(channel) = entry.channel.take() else { return };
        if let Some(due) = entry.lingers_until.take() {
            self.lingering.remove(&(due, key));
        }
        entry.halves.channel_closed();
        let has_handle = entry.has_handle;
        self.by_channel.remove(&channel);
        self.connection.close_channel(now, channel);
        if !has_handle && !self.to_accept.contains(&key) {
            self.streams.remove(&key);
        }
    }

    /// The channel is gone on both sides.
    fn channel_closed(&mut self, channel: ChannelId) {
        // There may be room for another stream now.
        self.notify = true;
        let Some(key) = self.by_channel.remove(&channel) else { return };
        let Some(entry) = self.streams.get_mut(&key) else { return };
        entry.channel = None;
        if let Some(due) = entry.lingers_until.take() {
            self.lingering.remove(&(due, key));
        }
        entry.halves.channel_closed();
        let kept = entry.has_handle || self.to_accept.contains(&key);
        self.wake_reader(key);
        self.wake_writer(key);
        if !kept {
            self.streams.remove(&key);
        }
    }

    fn end(&mut self, end: End) {
        self.error = Some(Arc::new(connection_error(&end)));
        self.end = Some(end);
        self.closing = None;
        self.stalled = None;
        self.lingering.clear();
        self.blocked.clear();
        self.by_channel.clear();
        // What has arrived can still be accepted and read.
        let to_accept = &self.to_accept;
        self.streams.retain(|key, entry| entry.has_handle || to_accept.contains(key));
        for entry in self.streams.values_mut() {
            entry.channel = None;
            self.wakers.extend(entry.reader.take());
            self.wakers.extend(entry.writer.take());
        }
        self.notify = true;
    }

    fn unblock(&mut self) {
        if self.connection.outstanding() >= self.send_target {
            return;
        }
        for key in std::mem::take(&mut self.blocked) {
            if let Some(entry) = self.streams.get_mut(&key) {
                entry.blocked = false;
                self.wakers.extend(entry.writer.take());
            }
        }
    }

    /// A window that streams keep closed which nobody reads stops all the others.
    fn reset_stalled(&mut self, now: Instant) {
        if self.connection.unread() < limits::SCTP_RECEIVE_WINDOW / 8 * 7 {
            self.stalled = None;
            return;
        }
        let since = *self.stalled.get_or_insert(now);
        if now.saturating_duration_since(since) < limits::STALLED_STREAM_TIMEOUT {
            return;
        }
        self.stalled = Some(now);
        let fullest =
            self.connection.fullest_channel().and_then(|channel| self.by_channel.get(&channel).copied());
        if let Some(key) = fullest {
            tracing::debug!(?key, "reset a stream that nobody reads and that holds up the connection");
            self.reset(now, key, 0);
        }
    }

    fn wake_reader(&mut self, key: StreamKey) {
        if let Some(entry) = self.streams.get_mut(&key) {
            self.wakers.extend(entry.reader.take());
        }
    }

    fn wake_writer(&mut self, key: StreamKey) {
        if let Some(entry) = self.streams.get_mut(&key) {
            self.wakers.extend(entry.writer.take());
        }
    }

    fn wake_writer_if_ended(&mut self, key: StreamKey) {
        if self.streams.get(&key).is_some_and(|entry| entry.halves.write_state() != WriteState::Open) {
            self.wake_writer(key);
        }
    }

    fn lost(&self) -> StreamError {
        match &self.error {
            Some(error) => StreamError::ConnectionLost(error.clone()),
            None => StreamError::Reset { code: 0 },
        }
    }
}

fn connection_error(end: &End) -> ConnectionError {
    match end {
        End::ClosedLocally => ConnectionError::ClosedLocally,
        End::ClosedByRemote => ConnectionError::ClosedByRemote,
        End::Silent | End::HandshakeTimedOut(_) => ConnectionError::TimedOut,
        End::Violation(what) => ConnectionError::Protocol((*what).to_owned()),
        end => ConnectionError::Io(end.to_string()),
    }
}

fn store(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(stored) => stored.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}

/// How long a task may sleep if nothing is due: for ever, in practice.
pub(crate) const NO_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests;
