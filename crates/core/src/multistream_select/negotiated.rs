//! Negotiation on a [`Stream`], and the stream that comes of it.

use std::{
    any::Any,
    future::poll_fn,
    mem,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;

use super::{Dialer, Listener, NegotiationError};
use crate::{
    protocol_name::ProtocolName,
    runtime::{MaybeSend, MaybeSync},
    stream::{Stream, StreamError, StreamExt},
};

/// Up to so many bytes of the first write are copied to go out in one piece with the proposal.
const COPY_WITH_PROPOSAL: usize = 4 * 1024;

/// Proposes `protocols` on `stream`, the one preferred most first.
///
/// With a single protocol this is ready at once and nothing is sent yet: see [`NegotiatedStream`]. With several it waits
/// until the remote has accepted one.
pub async fn negotiate_outbound(
    stream: Box<dyn Stream>,
    protocols: &[ProtocolName],
) -> Result<NegotiatedStream, NegotiationError> {
    let mut dialer = Dialer::new(protocols);
    let first = protocols.first().ok_or(NegotiationError::NoCommonProtocol)?;
    let proposal = Proposal { outgoing: dialer.take_outgoing(), dialer, wakers: Arc::default() };
    let mut stream = NegotiatedStream {
        inner: stream,
        protocol: first.clone(),
        unread: Bytes::new(),
        proposal: Some(proposal),
        failure: None,
        attached: Vec::new(),
    };
    if protocols.len() > 1 {
        stream.confirm().await?;
    }
    Ok(stream)
}

/// Waits for a proposal for which `supports` gives a name, and accepts it.
pub async fn negotiate_inbound(
    mut stream: Box<dyn Stream>,
    supports: impl Fn(&str) -> Option<ProtocolName>,
) -> Result<NegotiatedStream, NegotiationError> {
    let mut listener = Listener::new();
    loop {
        let mut unread = match stream.read_chunk().await? {
            Some(chunk) => chunk,
            None => return Err(listener.ended()),
        };
        let accepted = listener.receive(&mut unread, &supports)?;
        stream.write_all(listener.take_outgoing()).await?;
        if let Some(protocol) = accepted {
            return Ok(NegotiatedStream {
                inner: stream,
                protocol,
                unread,
                proposal: None,
                failure: None,
                attached: Vec::new(),
            });
        }
    }
}

/// A [`Stream`] that speaks a protocol which both sides know, or which we have proposed as the only one.
///
/// In the latter case the stream is lazy: the proposal goes out with the first bytes written (or when the stream is flushed,
/// read or closed), bytes can be written on without waiting, and the remote's answer is taken off what it sends first. If
/// that is a refusal, all polls fail with [`StreamError::ProtocolNotSupported`].
///
/// Closing the write half waits for the answer and sends the end only then. So a protocol that only sends can close and drop
/// the stream: the remote has accepted it by then, and is not told to stop in the middle of its answer. And a remote that
/// learns of the end before its handler runs may never tell the handler: js-libp2p 3.3 leaves it reading for ever.
pub struct NegotiatedStream {
    inner: Box<dyn Stream>,
    protocol: ProtocolName,
    /// What came after the negotiation in the same chunk.
    unread: Bytes,
    /// There until the remote has answered.
    proposal: Option<Proposal>,
    /// Why the negotiation failed, if it did.
    failure: Option<StreamError>,
    attached: Vec<Box<dyn Attachment>>,
}

/// Something that is to live as long as a stream does: what counts it, or holds a place for it.
pub trait Attachment: MaybeSend + MaybeSync + 'static {}

impl<T: MaybeSend + MaybeSync + 'static> Attachment for T {}

struct Proposal {
    dialer: Dialer,
    /// What is still to be sent of the negotiation.
    outgoing: Bytes,
    wakers: Arc<Wakers>,
}

/// As long as the negotiation lasts, either half may have to read or write on behalf of the other. The stream below keeps
/// only the waker of its last poll, so it is given one that wakes both.
#[derive(Default)]
struct Wakers {
    read: AtomicWaker,
    write: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.read.wake();
        self.write.wake();
    }
}

/// The half that is being polled.
#[derive(Clone, Copy)]
enum Half {
    Read,
    Write,
}

impl NegotiatedStream {
    /// The protocol that was agreed on, or that we have proposed.
    pub fn protocol(&self) -> &ProtocolName {
        &self.protocol
    }

    /// Lets `attachment` live as long as the stream.
    pub fn attach(&mut self, attachment: impl Attachment) {
        self.attached.push(Box::new(attachment));
    }

    /// Takes everything that was attached, for whoever takes the stream below out of this one.
    pub fn take_attached(&mut self) -> Vec<Box<dyn Attachment>> {
        mem::take(&mut self.attached)
    }

    /// Whether the remote has accepted the protocol.
    pub fn is_confirmed(&self) -> bool {
        self.proposal.is_none() && self.failure.is_none()
    }

    /// Waits until the remote has accepted the protocol. Cancel-safe.
    pub async fn confirm(&mut self) -> Result<(), NegotiationError> {
        poll_fn(|cx| self.poll_negotiate(cx, Half::Read)).await
    }

    /// The stream below, once the remote has accepted the protocol, and the bytes that were read from it already.
    pub async fn into_inner_parts(mut self) -> Result<(Box<dyn Stream>, Bytes), NegotiationError> {
        self.confirm().await?;
        Ok((self.inner, self.unread))
    }

    /// Ready when the remote has answered.
    fn poll_negotiate(&mut self, cx: &mut Context<'_>, half: Half) -> Poll<Result<(), NegotiationError>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone().into()));
        }
        let Some(waker) = self.shared_waker(cx, half) else { return Poll::Ready(Ok(())) };
        let answer = ready!(self.poll_answer(&mut Context::from_waker(&waker)));
        // Whichever half waits for the answer too has to look again.
        waker.wake();
        self.proposal = None;
        self.failure = answer.as_ref().err().map(as_stream_error);
        Poll::Ready(answer)
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NegotiationError>> {
        loop {
            // While there is no room for all of it, the remote may be waiting for us to read its header.
            let _sent_or_pending = self.poll_write_proposal(cx)?;
            let Some(proposal) = &mut self.proposal else { return Poll::Ready(Ok(())) };
            if self.unread.is_empty() {
                match ready!(self.inner.poll_read(cx))? {
                    Some(chunk) => self.unread = chunk,
                    None => return Poll::Ready(Err(NegotiationError::UnexpectedEnd)),
                }
            }
            let accepted = proposal.dialer.receive(&mut self.unread)?;
            let next = proposal.dialer.take_outgoing();
            if proposal.outgoing.has_remaining() && (accepted.is_some() || next.has_remaining()) {
                return Poll::Ready(Err(NegotiationError::Protocol("answer before the proposal")));
            }
            if let Some(protocol) = accepted {
                self.protocol = protocol;
                return Poll::Ready(Ok(()));
            }
            if next.has_remaining() {
                proposal.outgoing = next;
            }
        }
    }

    /// Ready when all of the proposal is in the stream below.
    fn poll_write_proposal(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let Some(proposal) = &mut self.proposal {
            while proposal.outgoing.has_remaining() {
                ready!(self.inner.poll_write(cx, &mut proposal.outgoing))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A waker for the stream below that wakes both halves, while the negotiation lasts.
    fn shared_waker(&self, cx: &Context<'_>, half: Half) -> Option<Waker> {
        let proposal = self.proposal.as_ref()?;
        match half {
            Half::Read => proposal.wakers.read.register(cx.waker()),
            Half::Write => proposal.wakers.write.register(cx.waker()),
        }
        Some(Waker::from(proposal.wakers.clone()))
    }

    /// Writes the proposal and the first bytes of `data` in one piece, as far as they are taken.
    fn poll_write_with_proposal(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), StreamError>> {
        let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.outgoing.has_remaining())
        else {
            return self.inner.poll_write(cx, data);
        };
        let copied = data.get(..COPY_WITH_PROPOSAL).unwrap_or(data);
        let mut together = Bytes::from([&proposal.outgoing, copied].concat());
        let mut data_taken = 0;
        while proposal.outgoing.has_remaining() {
            // Counted at once, so that nothing is sent twice if the next round is pending.
            let before = together.len();
            ready!(self.inner.poll_write(cx, &mut together))?;
            let taken = before.saturating_sub(together.len());
            let of_proposal = taken.min(proposal.outgoing.len());
            proposal.outgoing.advance(of_proposal);
            data_taken = taken.saturating_sub(of_proposal);
        }
        data.advance(data_taken);
        // Ready means that some of `data` was taken, unless there was none.
        if data_taken > 0 || data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.inner.poll_write(cx, data)
    }
}

impl Stream for NegotiatedStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        ready!(self.poll_negotiate(cx, Half::Read)).map_err(|error| as_stream_error(&error))?;
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(Some(mem::take(&mut self.unread))));
        }
        self.inner.poll_read(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        match self.shared_waker(cx, Half::Write) {
            Some(waker) => self.poll_write_with_proposal(&mut Context::from_waker(&waker), data),
            None => self.inner.poll_write(cx, data),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        let Some(waker) = self.shared_waker(cx, Half::Write) else { return self.inner.poll_flush(cx) };
        let cx = &mut Context::from_waker(&waker);
        ready!(self.poll_write_proposal(cx))?;
        self.inner.poll_flush(cx)
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        let Some(waker) = self.shared_waker(cx, Half::Write) else { return self.inner.poll_close_write(cx) };
        let shared = &mut Context::from_waker(&waker);
        ready!(self.poll_write_proposal(shared))?;
        ready!(self.poll_negotiate(cx, Half::Write)).map_err(|error| as_stream_error(&error))?;
        self.inner.poll_close_write(cx)
    }

    fn reset(&mut self, code: u32) {
        self.inner.reset(code);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl std::fmt::Debug for NegotiatedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let confirmed = self.is_confirmed();
        f.debug_struct("NegotiatedStream")
            .field("protocol", &self.protocol)
            .field("confirmed", &confirmed)
            .finish_non_exhaustive()
    }
}

fn as_stream_error(error: &NegotiationError) -> StreamError {
    match error {
        NegotiationError::NoCommonProtocol => StreamError::ProtocolNotSupported,
        NegotiationError::Protocol(reason) => StreamError::Protocol(reason),
        NegotiationError::UnexpectedEnd => {
            StreamError::Protocol("ended before the remote accepted the protocol")
        }
        NegotiationError::Stream(error) => error.clone(),
        NegotiationError::Io(_) => StreamError::Protocol("negotiation failed"),
    }
}
