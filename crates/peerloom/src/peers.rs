//! What is known of peers, kept in the data directory.

use std::{fs, path::Path};

use peerloom_node::NodeBuilder;
use peerloom_peer_storage::{PeerFile, PeerFileError};

/// In the data directory.
const FILE_NAME: &str = "peers.redb";

/// Has `node` keep what it knows of peers in `directory`.
pub(crate) fn keep(node: NodeBuilder, directory: &Path) -> Result<NodeBuilder, PeerFileError> {
    let path = directory.join(FILE_NAME);
    fs::create_dir_all(directory).map_err(|source| PeerFileError::Io { path: path.clone(), source })?;
    match PeerFile::open(path) {
        Ok(file) => Ok(node.peer_storage(file)),
        // Two nodes of one directory are unusual, but the second one works without.
        Err(error @ PeerFileError::InUse { .. }) => {
            tracing::warn!(%error, "what this one learns of peers is not kept");
            Ok(node)
        }
        Err(error) => Err(error),
    }
}
