//! Two peers that dial each other at the same time end with one connection, and both choose the same without a word.

use std::time::Duration;

use peerloom_core::PeerId;

use super::{ConnectionId, ConnectionInfo, Direction};

/// Connections of opposite directions that come within this were dialed by two peers that did not know of each other's dial. Of
/// two that come later than that, the older one may be dead, and the newer the remote's attempt to replace it.
const WINDOW: Duration = Duration::from_secs(5);

/// Which of two connections to one peer is superfluous, and which one makes it so, if they were dialed at the same time: what the
/// peer with the lesser id has dialed stays. Both ends know both peers' ids and who dialed, so they agree.
pub(super) fn superseded(
    own: PeerId,
    one: &ConnectionInfo,
    other: &ConnectionInfo,
) -> Option<(ConnectionId, ConnectionId)> {
    let apart = one.established.max(other.established) - one.established.min(other.established);
    let opposite = one.direction != other.direction && one.peer == other.peer;
    if !opposite || !one.is_direct() || !other.is_direct() || apart > WINDOW {
        return None;
    }
    let we_decide = own < one.peer;
    let stays = |info: &ConnectionInfo| (info.direction == Direction::Outbound) == we_decide;
    Some(if stays(one) { (other.id, one.id) } else { (one.id, other.id) })
}
