//! Raw streams of one protocol, in and out.

use std::collections::HashMap;

use anyhow::{Context as _, Result, anyhow};
use futures::StreamExt as _;
use litep2p::codec::ProtocolCodec;
use litep2p::protocol::{Direction, TransportEvent, TransportService, UserProtocol};
use litep2p::substream::Substream;
use litep2p::types::SubstreamId;
use litep2p::{PeerId, ProtocolName};
use tokio::sync::{mpsc, oneshot};

/// More than any check opens.
const QUEUE: usize = 16;

type Opened = oneshot::Sender<Result<Substream>>;

/// The protocol as litep2p runs it.
pub(crate) struct Protocol {
    name: &'static str,
    requests: mpsc::Receiver<(PeerId, Opened)>,
    inbound: mpsc::Sender<(PeerId, Substream)>,
}

/// Its user's end.
pub(crate) struct Streams {
    requests: mpsc::Sender<(PeerId, Opened)>,
    pub(crate) inbound: mpsc::Receiver<(PeerId, Substream)>,
}

pub(crate) fn streams(name: &'static str) -> (Box<Protocol>, Streams) {
    let (request, requests) = mpsc::channel(QUEUE);
    let (accept, inbound) = mpsc::channel(QUEUE);
    (Box::new(Protocol { name, requests, inbound: accept }), Streams { requests: request, inbound })
}

impl Streams {
    pub(crate) async fn open(&self, peer: PeerId) -> Result<Substream> {
        let (opened, stream) = oneshot::channel();
        self.requests.send((peer, opened)).await.map_err(|_| anyhow!("litep2p has ended"))?;
        stream.await.context("litep2p has ended")?
    }
}

#[async_trait::async_trait]
impl UserProtocol for Protocol {
    fn protocol(&self) -> ProtocolName {
        ProtocolName::from(self.name)
    }

    fn codec(&self) -> ProtocolCodec {
        ProtocolCodec::Unspecified
    }

    async fn run(mut self: Box<Self>, mut service: TransportService) -> litep2p::Result<()> {
        let mut opening: HashMap<SubstreamId, Opened> = HashMap::new();
        loop {
            tokio::select! {
                Some((peer, opened)) = self.requests.recv() => match service.open_substream(peer) {
                    Ok(id) => _ = opening.insert(id, opened),
                    Err(error) => _ = opened.send(Err(error.into())),
                },
                event = service.next() => match event {
                    Some(TransportEvent::SubstreamOpened { peer, direction: Direction::Inbound, substream, .. }) => {
                        let _ = self.inbound.send((peer, substream)).await;
                    }
                    Some(TransportEvent::SubstreamOpened { direction: Direction::Outbound(id), substream, .. }) => {
                        if let Some(opened) = opening.remove(&id) {
                            let _ = opened.send(Ok(substream));
                        }
                    }
                    Some(TransportEvent::SubstreamOpenFailure { substream, error }) => {
                        if let Some(opened) = opening.remove(&substream) {
                            let _ = opened.send(Err(error.into()));
                        }
                    }
                    Some(_) => {}
                    None => return Ok(()),
                }
            }
        }
    }
}
