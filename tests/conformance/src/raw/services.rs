//! The host's services, as a host of any size offers them.
#![expect(unsafe_code, reason = "functions that the plugin calls")]

use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::{Arc, Mutex, PoisonError};

use pajamas_plugin_api::abi::{PJ_ABI_MAJOR, PjHost, PjStr};

use super::block::{Block, Shape};

/// Most log messages that are kept; later ones are dropped.
const MESSAGES_MAX: usize = 10_000;

/// One message that the plugin logged.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) level: u32,
    /// Target, text and fields, or what is wrong with one of them.
    pub(crate) text: Result<[String; 3], String>,
}

/// What the plugin logged.
#[derive(Debug, Default)]
pub(crate) struct Messages(Mutex<Vec<Message>>);

impl Messages {
    pub(crate) fn all(&self) -> Vec<Message> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The struct for the plugin. Like a sink's recorder, `messages` is never freed.
pub(crate) fn host(messages: &Arc<Messages>, negotiated_minor: u32, shape: Shape) -> Block {
    let is_bare = shape == Shape::Smaller;
    let host = PjHost {
        struct_size: size_of::<PjHost>() as u32,
        abi_major: PJ_ABI_MAJOR,
        abi_minor: negotiated_minor,
        reserved: 0,
        ctx: Arc::into_raw(Arc::clone(messages)).cast_mut().cast::<c_void>(),
        log_enabled: if is_bare { None } else { Some(log_enabled) },
        log: if is_bare { None } else { Some(log) },
        get_extension: Some(get_extension),
    };
    let size = if is_bare { offset_of!(PjHost, get_extension) } else { size_of::<PjHost>() };
    Block::new(&[host], size, shape)
}

unsafe extern "C" fn log_enabled(_ctx: *mut c_void, _level: u32, _target: PjStr) -> u8 {
    1
}

unsafe extern "C" fn log(ctx: *mut c_void, level: u32, target: PjStr, message: PjStr, fields_json: PjStr) {
    // SAFETY: `ctx` is never freed; the texts are valid for the call.
    let (messages, texts) = unsafe {
        let read = |text: PjStr, what| text.text(what).map(str::to_owned).map_err(|e| e.to_string());
        let texts = [(target, "target"), (message, "message"), (fields_json, "fields_json")];
        (&*ctx.cast::<Messages>(), texts.map(|(text, what)| read(text, what)))
    };
    let [target, message, fields] = texts;
    let text = target.and_then(|target| Ok([target, message?, fields?]));
    let mut messages = messages.0.lock().unwrap_or_else(PoisonError::into_inner);
    if messages.len() < MESSAGES_MAX {
        messages.push(Message { level, text });
    }
}

unsafe extern "C" fn get_extension(_ctx: *mut c_void, _id: PjStr) -> *const c_void {
    std::ptr::null()
}
