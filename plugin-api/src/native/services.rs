//! The host's services as the plugin sees them: `pj_host` and its functions.
#![expect(unsafe_code, reason = "functions that the plugin calls")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::abi::{PJ_ABI_MAJOR, PjHost, PjStr};
use crate::log::{LogSink, level_from_abi};

/// Longest message that is taken from a plugin, in bytes; the rest is cut off.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Owns what `pj_host` points to.
#[derive(Debug)]
pub(super) struct Services {
    raw: Box<PjHost>,
}

// SAFETY: `ctx` points to a leaked, shared `LogSink`, which is Send and Sync.
unsafe impl Send for Services {}
// SAFETY: as above.
unsafe impl Sync for Services {}

impl Services {
    /// The log sink is leaked on purpose: a plugin's thread may log after `shutdown`, and that must not crash.
    pub(super) fn new(log: Arc<dyn LogSink>, negotiated_minor: u32) -> Self {
        let ctx: &'static mut Arc<dyn LogSink> = Box::leak(Box::new(log));
        let raw = PjHost {
            struct_size: size_of::<PjHost>() as u32,
            abi_major: PJ_ABI_MAJOR,
            abi_minor: negotiated_minor,
            reserved: 0,
            ctx: (&raw mut *ctx).cast::<c_void>(),
            log_enabled: Some(log_enabled),
            log: Some(log_message),
            get_extension: Some(get_extension),
        };
        Self { raw: Box::new(raw) }
    }

    pub(super) fn raw(&self) -> *const PjHost {
        &raw const *self.raw
    }
}

/// # Safety
/// `ctx` is the one that `Services::new` leaked.
unsafe fn sink<'a>(ctx: *mut c_void) -> Option<&'a Arc<dyn LogSink>> {
    // SAFETY: forwarded.
    unsafe { ctx.cast::<Arc<dyn LogSink>>().as_ref() }
}

unsafe extern "C" fn log_enabled(ctx: *mut c_void, level: u32, target: PjStr) -> u8 {
    // SAFETY: the plugin passes the host's `ctx` back; the text lives for the call.
    let (log, target) = unsafe { (sink(ctx), target.text("target")) };
    let Some(log) = log else { return 0 };
    let enabled = || log.enabled(level_from_abi(level), target.unwrap_or_default());
    u8::from(catch_unwind(AssertUnwindSafe(enabled)).unwrap_or(false))
}

unsafe extern "C" fn log_message(ctx: *mut c_void, level: u32, target: PjStr, message: PjStr, fields: PjStr) {
    // SAFETY: as in `log_enabled`.
    let (log, texts) = unsafe { (sink(ctx), [target, message, fields].map(|t| t.bytes("log text"))) };
    let Some(log) = log else { return };
    let [target, message, fields] = texts.map(|bytes| {
        let bytes = bytes.unwrap_or_default();
        String::from_utf8_lossy(&bytes[..bytes.len().min(MESSAGE_BYTES_MAX)]).into_owned()
    });
    // The sink is the host's; should it panic, nothing unwinds into the plugin.
    drop(catch_unwind(AssertUnwindSafe(|| log.log(level_from_abi(level), &target, &message, &fields))));
}

unsafe extern "C" fn get_extension(_ctx: *mut c_void, _id: PjStr) -> *const c_void {
    // ABI 1.0 has no host extensions yet; absent means unsupported.
    std::ptr::null()
}
