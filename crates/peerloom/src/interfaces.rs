//! The machine's addresses, as they come and go.

use peerloom_node::{Node, NodeEvent};
use peerloom_socket::interfaces::InterfaceChanges;

/// Tells `node` when the machine has other addresses, from the moment on at which it listens.
pub(crate) fn follow(node: &Node) {
    let (mut events, weak) = (node.events(), node.downgrade());
    node.spawn(async move {
        while !matches!(events.next().await, Some(NodeEvent::ListenAddressesChanged { .. }) | None) {}
        drop(events);
        let following = async {
            let mut changes = InterfaceChanges::watch()?;
            loop {
                changes.next().await?;
                let Some(node) = weak.upgrade() else { return Ok::<_, std::io::Error>(()) };
                node.network_changed();
            }
        };
        if let Err(error) = following.await {
            tracing::warn!(%error, "changes of the machine's addresses are not seen");
        }
    });
}
