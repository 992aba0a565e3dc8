//! The page's own say in who may connect.

use js_sys::{Function, Object, Promise};
use peerloom_core::runtime::BoxFuture;
use peerloom_node::{Denied, Direction, Gate, Passage, Refusal};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortController;

use crate::{error::error, js};

/// A function of the page's that is called with each [`Passage`] and an `AbortSignal`, and returns a promise: rejected, it is a
/// refusal.
pub(crate) struct PageGate(pub(crate) Function);

impl Gate for PageGate {
    fn permit(&self, passage: Passage) -> BoxFuture<'static, Result<(), Refusal>> {
        let question = Question(AbortController::new().ok());
        let signal = question.0.as_ref().map_or(JsValue::UNDEFINED, |controller| controller.signal().into());
        let answer = self.0.call2(&JsValue::UNDEFINED, &describe_passage(&passage), &signal);
        Box::pin(async move {
            let mut question = question;
            let answer = match answer.and_then(JsCast::dyn_into::<Promise>) {
                Ok(promise) => JsFuture::from(promise).await,
                Err(error) => Err(error),
            };
            question.0 = None;
            answer.map(drop).map_err(|error| Refusal::Gate(js::describe(&error)))
        })
    }
}

/// Aborted if it is dropped before it was answered.
struct Question(Option<AbortController>);

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(controller) = &self.0 {
            controller.abort();
        }
    }
}

/// A `CorePassage`.
fn describe_passage(passage: &Passage) -> Object {
    let described = Object::new();
    let kind = match passage {
        Passage::Peer { .. } => "peer",
        Passage::Address { .. } => "address",
        Passage::Connection { direction: Direction::Outbound, .. } => "outbound",
        Passage::Connection { .. } => "inbound",
        _ => "incoming",
    };
    js::set_property(&described, "kind", &JsValue::from_str(kind));
    describe_end(&described, passage);
    described
}

/// What is known of the other side.
fn describe_end(described: &Object, passage: &Passage) {
    let peer = passage.peer().map(|peer| peer.to_string());
    js::set_property(described, "peer", &peer.into());
    let address = passage.address().map(|address| address.to_string());
    js::set_property(described, "address", &address.into());
}

/// The part of a `CoreEvent` that tells of somebody who did not get in.
pub(crate) fn describe_denied(described: &Object, denied: &Denied) {
    describe_end(described, &denied.passage);
    js::set_property(described, "reason", &error("ERR_DENIED", &denied.to_string()));
}

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
export interface CorePassage {
  kind: 'peer' | 'address' | 'incoming' | 'inbound' | 'outbound'
  peer: string | undefined
  address: string | undefined
}
"#;
