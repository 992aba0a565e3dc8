use futures_util::future::{Either, select};
use peerloom_core::runtime::BoxFuture;
use tokio::sync::oneshot;
use wasm_bindgen::JsValue;
use web_sys::{AbortSignal, Event};

use crate::{error::error, event_listener::EventListener, js};

/// Runs `work` until it is done or `signal` aborts it, by dropping it.
pub(crate) fn abortable(
    signal: Option<AbortSignal>,
    work: BoxFuture<'static, Result<JsValue, JsValue>>,
) -> BoxFuture<'static, Result<JsValue, JsValue>> {
    let Some(signal) = signal else { return work };
    Box::pin(async move {
        if signal.aborted() {
            return Err(aborted(&signal));
        }
        let (sender, receiver) = oneshot::channel::<()>();
        let mut sender = Some(sender);
        let _listener = EventListener::new(&signal, "abort", move |_: Event| drop(sender.take()));
        match select(work, receiver).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => Err(aborted(&signal)),
        }
    })
}

fn aborted(signal: &AbortSignal) -> JsValue {
    let reason = js::property(signal, "reason");
    let error = error("ERR_ABORTED", &js::describe(&reason));
    js::set_property(&error, "cause", &reason);
    error
}
