use std::cell::RefCell;

use bytes::Bytes;
use js_sys::{Array, Function, Promise, Uint8Array};
use peerloom_core::runtime::BoxFuture;
use peerloom_node::{PeerChange, PeerStorage, PeerStorageError, StoredPeer};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::js;

/// What the page has read from its storage, and its way to write there: a `CorePeerStorage`.
pub(crate) struct PagePeerStorage {
    read: RefCell<Vec<StoredPeer>>,
    write: Function,
}

impl PagePeerStorage {
    /// `None` if it is no such object.
    pub(crate) fn new(storage: &JsValue) -> Option<Self> {
        let read = js::property(storage, "peers").dyn_into::<Array>().ok()?;
        let read = read.iter().filter_map(|stored| {
            // The node judges the records; whatever else there is in the page's storage is not ours.
            let peer = js::property(&stored, "peer").as_string()?.parse().ok()?;
            let record = js::property(&stored, "record").dyn_into::<Uint8Array>().ok()?;
            Some(StoredPeer { peer, record: record.to_vec().into() })
        });
        let write = js::property(storage, "write").dyn_into().ok()?;
        Some(Self { read: RefCell::new(read.collect()), write })
    }
}

impl PeerStorage for PagePeerStorage {
    fn load(&self, at_most: usize) -> Result<Vec<StoredPeer>, PeerStorageError> {
        let mut read = self.read.take();
        read.truncate(at_most);
        Ok(read)
    }

    fn write(&self, changes: Vec<PeerChange>) -> BoxFuture<'static, Result<(), PeerStorageError>> {
        let changes: Array = changes.into_iter().map(describe).collect();
        // Called at once, not when the future is polled: a page that is going away gets no further.
        let written = self.write.call1(&JsValue::UNDEFINED, &changes);
        Box::pin(async move {
            let failed = |error: JsValue| PeerStorageError::new(js::describe(&error));
            let written = written.and_then(|written| written.dyn_into::<Promise>()).map_err(failed)?;
            JsFuture::from(written).await.map_err(failed)?;
            Ok(())
        })
    }
}

/// A `CorePeerChange`. What is not said is undefined.
fn describe(change: PeerChange) -> JsValue {
    let (peer, record, stamp): (_, Option<Bytes>, _) = match change {
        PeerChange::Put { peer, record, stamp } => (peer, Some(record), Some(stamp)),
        PeerChange::Remove { peer, stamp } => (peer, None, stamp),
    };
    let described = js_sys::Object::new();
    js::set_property(&described, "peer", &JsValue::from(peer.to_string()));
    let record = record.map(|record| Uint8Array::from(&*record).into());
    js::set_property(&described, "record", &record.unwrap_or(JsValue::UNDEFINED));
    js::set_property(&described, "stamp", &stamp.map(|stamp| stamp as f64).into());
    described.into()
}
