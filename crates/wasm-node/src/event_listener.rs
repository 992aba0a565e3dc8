use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{Event, EventTarget};

/// A listener on a browser object. Dropping it removes it and frees the closure.
pub(crate) struct EventListener {
    target: EventTarget,
    kind: &'static str,
    callback: Closure<dyn FnMut(Event)>,
}

impl EventListener {
    /// Calls `callback` for every event of this kind; the caller knows the kind's event type `E`.
    pub(crate) fn new<E: JsCast>(
        target: &EventTarget,
        kind: &'static str,
        mut callback: impl FnMut(E) + 'static,
    ) -> Self {
        Self::boxed(target, kind, Box::new(move |event: Event| callback(event.unchecked_into())))
    }

    /// What does not depend on the callback, so that it is compiled once.
    fn boxed(target: &EventTarget, kind: &'static str, callback: Box<dyn FnMut(Event)>) -> Self {
        let callback = Closure::wrap(callback);
        // Fails on no browser: it would have to refuse a function.
        let _ = target.add_event_listener_with_callback(kind, callback.as_ref().unchecked_ref());
        Self { target: target.clone(), kind, callback }
    }
}

impl Drop for EventListener {
    fn drop(&mut self) {
        let _ = self
            .target
            .remove_event_listener_with_callback(self.kind, self.callback.as_ref().unchecked_ref());
    }
}
