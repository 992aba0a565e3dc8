use std::cell::RefCell;

use js_sys::Function;
use wasm_bindgen::JsValue;

thread_local! {
    static ON_PANIC: RefCell<Option<Function>> = const { RefCell::new(None) };
}

/// Calls `callback` with the message of a panic, before the instance traps: whoever waits for a promise of ours would
/// otherwise wait for ever.
pub(crate) fn report_to(callback: Function) {
    ON_PANIC.with(|on_panic| on_panic.replace(Some(callback)));
    std::panic::set_hook(Box::new(|info| {
        let message = JsValue::from_str(&info.to_string());
        web_sys::console::error_1(&message);
        // Taken, so that a panic within the callback does not come back here.
        let callback =
            ON_PANIC.with(|on_panic| on_panic.try_borrow_mut().ok().and_then(|mut callback| callback.take()));
        if let Some(callback) = callback {
            let _ = callback.call1(&JsValue::UNDEFINED, &message);
        }
    }));
}
