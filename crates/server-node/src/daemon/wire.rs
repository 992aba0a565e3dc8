//! The protobuf messages, field by field: p2pd.proto of libp2p's daemon, and the peer store of js-libp2p's.
//!
//! A number that stands for a type is taken as a number, so that an unknown one is answered and not skipped. Fields that the
//! proto requires are optional here for the same reason.

use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(int32, optional, tag = "1")]
    pub(super) kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub(super) connect: Option<Connect>,
    #[prost(message, optional, tag = "3")]
    pub(super) stream_open: Option<StreamOpen>,
    #[prost(message, optional, tag = "4")]
    pub(super) stream_handler: Option<StreamHandler>,
    /// Not looked into.
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub(super) dht: Option<Bytes>,
    #[prost(message, optional, tag = "6")]
    pub(super) conn_manager: Option<ConnManager>,
    #[prost(message, optional, tag = "7")]
    pub(super) disconnect: Option<Disconnect>,
    /// Not looked into.
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub(super) pubsub: Option<Bytes>,
    #[prost(message, optional, tag = "9")]
    pub(super) peer_store: Option<PeerStoreRequest>,
}

/// The values of [`Request::kind`].
pub(super) mod request {
    pub(in crate::daemon) const IDENTIFY: i32 = 0;
    pub(in crate::daemon) const CONNECT: i32 = 1;
    pub(in crate::daemon) const STREAM_OPEN: i32 = 2;
    pub(in crate::daemon) const STREAM_HANDLER: i32 = 3;
    pub(in crate::daemon) const DHT: i32 = 4;
    pub(in crate::daemon) const LIST_PEERS: i32 = 5;
    pub(in crate::daemon) const CONNMANAGER: i32 = 6;
    pub(in crate::daemon) const DISCONNECT: i32 = 7;
    pub(in crate::daemon) const PUBSUB: i32 = 8;
    pub(in crate::daemon) const PEERSTORE: i32 = 9;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Connect {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) peer: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) addrs: Vec<Bytes>,
    /// In seconds.
    #[prost(int64, optional, tag = "3")]
    pub(super) timeout: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StreamOpen {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) peer: Option<Bytes>,
    #[prost(string, repeated, tag = "2")]
    pub(super) proto: Vec<String>,
    /// In seconds.
    #[prost(int64, optional, tag = "3")]
    pub(super) timeout: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StreamHandler {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) addr: Option<Bytes>,
    #[prost(string, repeated, tag = "2")]
    pub(super) proto: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ConnManager {
    #[prost(int32, optional, tag = "1")]
    pub(super) kind: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) peer: Option<Bytes>,
    #[prost(string, optional, tag = "3")]
    pub(super) tag: Option<String>,
    #[prost(int64, optional, tag = "4")]
    pub(super) weight: Option<i64>,
}

/// The values of [`ConnManager::kind`].
pub(super) mod conn_manager {
    pub(in crate::daemon) const TAG_PEER: i32 = 0;
    pub(in crate::daemon) const UNTAG_PEER: i32 = 1;
    pub(in crate::daemon) const TRIM: i32 = 2;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Disconnect {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) peer: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PeerStoreRequest {
    #[prost(int32, optional, tag = "1")]
    pub(super) kind: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) id: Option<Bytes>,
}

/// The values of [`PeerStoreRequest::kind`].
pub(super) mod peer_store {
    pub(in crate::daemon) const GET_PROTOCOLS: i32 = 1;
    pub(in crate::daemon) const GET_PEER_INFO: i32 = 2;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(int32, optional, tag = "1")]
    pub(super) kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub(super) error: Option<ErrorResponse>,
    #[prost(message, optional, tag = "3")]
    pub(super) stream_info: Option<StreamInfo>,
    /// An IdentifyResponse, which has the fields of a PeerInfo.
    #[prost(message, optional, tag = "4")]
    pub(super) identify: Option<PeerInfo>,
    #[prost(message, repeated, tag = "6")]
    pub(super) peers: Vec<PeerInfo>,
    #[prost(message, optional, tag = "8")]
    pub(super) peer_store: Option<PeerStoreResponse>,
}

/// The values of [`Response::kind`].
pub(super) mod response {
    pub(in crate::daemon) const OK: i32 = 0;
    pub(in crate::daemon) const ERROR: i32 = 1;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ErrorResponse {
    #[prost(string, optional, tag = "1")]
    pub(super) msg: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StreamInfo {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) peer: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) addr: Option<Bytes>,
    #[prost(string, optional, tag = "3")]
    pub(super) proto: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PeerInfo {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) id: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) addrs: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PeerStoreResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) peer: Option<PeerInfo>,
    #[prost(string, repeated, tag = "2")]
    pub(super) protos: Vec<String>,
}
