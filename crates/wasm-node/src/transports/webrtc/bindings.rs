//! What web-sys lacks, or has in a form that throws through Rust's frames.

use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use web_sys::{EventTarget, RtcDataChannel, RtcDataChannelInit, RtcPeerConnection};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(extends = RtcPeerConnection, js_name = RTCPeerConnection)]
    pub(crate) type Channels;
    /// Throws when the connection is closed or has no channel left.
    #[wasm_bindgen(method, catch, js_name = createDataChannel)]
    pub(crate) fn create_data_channel(
        this: &Channels,
        label: &str,
        options: &RtcDataChannelInit,
    ) -> Result<RtcDataChannel, JsValue>;
    /// There once descriptions are set, in browsers that have it.
    #[wasm_bindgen(method, getter)]
    pub(crate) fn sctp(this: &Channels) -> Option<SctpTransport>;

    #[wasm_bindgen(extends = EventTarget, js_name = RTCSctpTransport)]
    pub(crate) type SctpTransport;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn state(this: &SctpTransport) -> String;
}
