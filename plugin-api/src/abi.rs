//! The C ABI, version 1: `repr(C)` types and constants only.
//!
//! `include/pajamas_plugin.h` is generated from this file; `SPEC.md` gives the rules. Every struct that may grow
//! begins with `struct_size`, is passed by pointer only and is append-only: a field exists for the reader iff it
//! lies within the writer's `struct_size`, and a function may be called iff it also is not `NULL`.
//! Rust authors do not need this module: they implement [`crate::Backend`] and call [`crate::export_plugin!`].

use std::ffi::{c_char, c_void};

pub mod convert;

/// Major version of the ABI. A breaking change means a new entry symbol, never a new meaning of an old one.
pub const PJ_ABI_MAJOR: u32 = 1;
/// Minor version of the ABI: grows when fields are appended or constants are added.
pub const PJ_ABI_MINOR: u32 = 0;

/// The call succeeded.
pub const PJ_OK: i32 = 0;
/// The job or call was cancelled; not a failure.
pub const PJ_CANCELLED: i32 = 1;
/// The request is not valid (unknown option, wrong shape, prompt too long).
pub const PJ_ERR_INVALID: i32 = 2;
/// The plugin does not support what was asked.
pub const PJ_ERR_UNSUPPORTED: i32 = 3;
/// A file or an object does not exist.
pub const PJ_ERR_NOT_FOUND: i32 = 4;
/// Host or device memory does not suffice.
pub const PJ_ERR_OUT_OF_MEMORY: i32 = 5;
/// The model file is corrupt or of an unknown kind.
pub const PJ_ERR_BAD_MODEL: i32 = 6;
/// All queues are full: try again later.
pub const PJ_ERR_OVERLOADED: i32 = 7;
/// The deadline of the request has passed.
pub const PJ_ERR_DEADLINE: i32 = 8;
/// A device failed or is missing.
pub const PJ_ERR_DEVICE: i32 = 9;
/// Any other failure inside the plugin.
pub const PJ_ERR_INTERNAL: i32 = 10;
/// Plugin code panicked or threw; the call was abandoned.
pub const PJ_ERR_PANIC: i32 = 11;

/// Log level: an error.
pub const PJ_LOG_ERROR: u32 = 1;
/// Log level: a warning.
pub const PJ_LOG_WARN: u32 = 2;
/// Log level: something a user wants to know.
pub const PJ_LOG_INFO: u32 = 3;
/// Log level: something a developer wants to know.
pub const PJ_LOG_DEBUG: u32 = 4;
/// Log level: everything.
pub const PJ_LOG_TRACE: u32 = 5;

/// One generated token: `token`, `text`, and `logprob` and `top` if asked for.
pub const PJ_EVENT_TOKEN: u32 = 1;
/// One transcribed segment: `json` as in the schema of `transcribe`.
pub const PJ_EVENT_SEGMENT: u32 = 2;
/// A chunk of audio: `data` is interleaved f32 in -1..1, with `sample_rate_hz` and `channels`.
pub const PJ_EVENT_AUDIO: u32 = 3;
/// Detected objects of one picture: `json` as in the schema of `detect`.
pub const PJ_EVENT_DETECTIONS: u32 = 4;
/// A vector of f32 in `data`, for input number `index`.
pub const PJ_EVENT_VECTOR: u32 = 5;
/// Named tensors in `tensors`.
pub const PJ_EVENT_TENSORS: u32 = 6;
/// Progress of a long call: `fraction` in 0..1, `text` says what is done.
pub const PJ_EVENT_PROGRESS: u32 = 7;
/// Running counts: `prompt_tokens`, `cached_tokens`, `completion_tokens`.
pub const PJ_EVENT_USAGE: u32 = 8;
/// Terminal: the job succeeded; `code` is a `PJ_FINISH_…`, the counts are final.
pub const PJ_EVENT_DONE: u32 = 9;
/// Terminal: the job failed; `code` is a status, `text` says why.
pub const PJ_EVENT_ERROR: u32 = 10;
/// The answer of a call that answers with JSON (`probe`, `inspect`, `load`, `stats`, `classify`): `json`.
pub const PJ_EVENT_RESULT: u32 = 11;

/// Finish reason: the model ended by itself.
pub const PJ_FINISH_STOP: i32 = 0;
/// Finish reason: `max_tokens` or the end of the context was reached.
pub const PJ_FINISH_LENGTH: i32 = 1;
/// Finish reason: the job was cancelled.
pub const PJ_FINISH_CANCELLED: i32 = 2;

/// A piece of text, UTF-8. With `PJ_PART_TRUSTED` in `flags` it may contain control tokens.
pub const PJ_PART_TEXT: u32 = 1;
/// Token ids: `data` is an array of u32.
pub const PJ_PART_TOKENS: u32 = 2;
/// A picture: `data` is RGB, 8 bits each, row by row; `shape` is height, width, 3.
pub const PJ_PART_RGB8: u32 = 3;
/// Sound: `data` is mono f32 at 16 kHz in -1..1; `shape` is the number of samples.
pub const PJ_PART_PCM_F32: u32 = 4;
/// A named tensor: `dtype`, `shape`, `data`.
pub const PJ_PART_TENSOR: u32 = 5;
/// Bytes of a kind that `meta_json` names.
pub const PJ_PART_BYTES: u32 = 6;

/// In `pj_part.flags`: the text comes from the model's own template, and control tokens in it are meant.
pub const PJ_PART_TRUSTED: u32 = 1;

/// DLPack type code of signed integers.
pub const PJ_DTYPE_INT: u8 = 0;
/// DLPack type code of unsigned integers.
pub const PJ_DTYPE_UINT: u8 = 1;
/// DLPack type code of IEEE floating point numbers.
pub const PJ_DTYPE_FLOAT: u8 = 2;
/// DLPack type code of bfloat16.
pub const PJ_DTYPE_BFLOAT: u8 = 4;
/// DLPack type code of booleans.
pub const PJ_DTYPE_BOOL: u8 = 6;

/// A UTF-8 string that is not zero-terminated. Frozen: it is passed by value and never grows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PjStr {
    /// First byte; may be `NULL` iff `len` is 0.
    pub ptr: *const c_char,
    /// Length in bytes.
    pub len: u64,
}

/// Element type of a tensor, laid out as DLPack's `DLDataType`. Frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PjDtype {
    /// One of `PJ_DTYPE_…`.
    pub code: u8,
    /// Bits of one lane.
    pub bits: u8,
    /// Number of lanes, 1 for scalars.
    pub lanes: u16,
}

/// What a plugin made in `init`; only the plugin looks inside.
#[derive(Debug)]
pub struct PjContext {
    _private: (),
}

/// A loaded model; only the plugin looks inside.
#[derive(Debug)]
pub struct PjModel {
    _private: (),
}

/// A running job; only the plugin looks inside.
#[derive(Debug)]
pub struct PjJob {
    _private: (),
}

/// The host's services. Valid from `init` until `shutdown` has returned; callable from any thread.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PjHost {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// The negotiated major version.
    pub abi_major: u32,
    /// The negotiated minor version: the smaller of the host's and the plugin's.
    pub abi_minor: u32,
    /// 0.
    pub reserved: u32,
    /// First argument of the functions below.
    pub ctx: *mut c_void,
    /// Whether a message of this level would be kept: a cheap test before building a message.
    pub log_enabled: Option<unsafe extern "C" fn(ctx: *mut c_void, level: u32, target: PjStr) -> u8>,
    /// Logs one message; `fields_json` is empty or a JSON object. Never blocks for long.
    pub log: Option<
        unsafe extern "C" fn(ctx: *mut c_void, level: u32, target: PjStr, message: PjStr, fields_json: PjStr),
    >,
    /// Looks up an optional service of the host; `NULL` means that the host does not have it.
    pub get_extension: Option<unsafe extern "C" fn(ctx: *mut c_void, id: PjStr) -> *const c_void>,
}

/// One alternative of a token, with its log-probability. Arrays of it carry `top_size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PjTopLogprob {
    /// Token id.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's bytes; may end inside a code point.
    pub text: PjStr,
}

/// A named tensor in host memory, contiguous and row-major. Arrays of it carry `tensor_size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PjTensor {
    /// Size of this struct as its writer knows it, in bytes.
    pub struct_size: u32,
    /// Element type.
    pub dtype: PjDtype,
    /// Number of dimensions.
    pub rank: u32,
    /// 0.
    pub reserved: u32,
    /// Name of the input or output.
    pub name: PjStr,
    /// `rank` dimensions.
    pub shape: *const i64,
    /// First byte.
    pub data: *const c_void,
    /// Length in bytes.
    pub data_len: u64,
}

/// What a plugin tells the host about a job or a call. All pointers are valid for the length of `push` only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PjEvent {
    /// Size of this struct as the plugin knows it, in bytes.
    pub struct_size: u32,
    /// One of `PJ_EVENT_…`; the host ignores kinds that it does not know.
    pub kind: u32,
    /// DONE: `PJ_FINISH_…`. ERROR: a status.
    pub code: i32,
    /// 0; bits are defined by later minors.
    pub flags: u32,
    /// TOKEN: token id.
    pub token: u32,
    /// TOKEN: natural logarithm of the token's probability, if asked for.
    pub logprob: f32,
    /// VECTOR, RESULT: number of the input, from 0.
    pub index: u32,
    /// PROGRESS: 0 to 1.
    pub fraction: f32,
    /// AUDIO: frames per second.
    pub sample_rate_hz: u32,
    /// AUDIO: interleaved channels.
    pub channels: u32,
    /// USAGE, DONE: tokens of the prompt.
    pub prompt_tokens: u32,
    /// USAGE, DONE: tokens of the prompt whose computation was reused.
    pub cached_tokens: u32,
    /// USAGE, DONE: tokens generated, those of `resume` included.
    pub completion_tokens: u32,
    /// TOKEN: number of entries in `top`.
    pub top_len: u32,
    /// TOKEN: size of one entry of `top`, in bytes.
    pub top_size: u32,
    /// TENSORS: number of entries in `tensors`.
    pub tensors_len: u32,
    /// TENSORS: size of one entry of `tensors`, in bytes.
    pub tensor_size: u32,
    /// 0.
    pub reserved: u32,
    /// TOKEN: the token's bytes, which may end inside a code point. PROGRESS, ERROR: a message.
    pub text: PjStr,
    /// SEGMENT, DETECTIONS, RESULT: a JSON document.
    pub json: PjStr,
    /// AUDIO, VECTOR: first byte of the payload.
    pub data: *const c_void,
    /// Length of `data` in bytes.
    pub data_len: u64,
    /// TOKEN: the most probable alternatives, best first.
    pub top: *const PjTopLogprob,
    /// TENSORS: the tensors.
    pub tensors: *const PjTensor,
}

/// Where a plugin sends events. Valid, with its `ctx`, until the call returns (`init`, `probe`, `inspect`, `load`,
/// `stats`) or until `release_job` returns (`submit`). Both functions are callable from any thread and never block.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PjSink {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// First argument of the functions below.
    pub ctx: *mut c_void,
    /// Takes one event. `PJ_OK`, or `PJ_CANCELLED`: stop soon and send the terminal event.
    pub push: Option<unsafe extern "C" fn(ctx: *mut c_void, event: *const PjEvent) -> i32>,
    /// 1 when the call or job is cancelled: poll it wherever nothing is pushed for long.
    pub cancelled: Option<unsafe extern "C" fn(ctx: *mut c_void) -> u8>,
}

/// One piece of a request's input. Arrays of it carry `part_size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PjPart {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// One of `PJ_PART_…`.
    pub kind: u32,
    /// `PJ_PART_TRUSTED` or 0.
    pub flags: u32,
    /// Element type of `data`.
    pub dtype: PjDtype,
    /// Number of dimensions in `shape`.
    pub rank: u32,
    /// 0.
    pub reserved: u32,
    /// Name of the input, or empty.
    pub name: PjStr,
    /// Empty or a JSON object.
    pub meta_json: PjStr,
    /// `rank` dimensions.
    pub shape: *const i64,
    /// First byte.
    pub data: *const c_void,
    /// Length in bytes.
    pub data_len: u64,
}

/// One request. Valid, with everything that it points to, until `submit` returns: the plugin copies what it keeps.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PjRequest {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// Number of entries in `parts`.
    pub parts_len: u32,
    /// Size of one entry of `parts`, in bytes.
    pub part_size: u32,
    /// 0.
    pub reserved: u32,
    /// Name of the task, such as `generate`.
    pub task: PjStr,
    /// The parameters: a JSON object as in the task's schema.
    pub params_json: PjStr,
    /// The inputs.
    pub parts: *const PjPart,
    /// Milliseconds from now until the answer is useless; 0 means no deadline.
    pub deadline_ms: u64,
}

/// A plugin: static data and functions. It stays valid until the process ends.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PjPlugin {
    /// Size of this struct as the plugin knows it, in bytes.
    pub struct_size: u32,
    /// The major version that the plugin was built for: 1.
    pub abi_major: u32,
    /// The minor version that the plugin was built for.
    pub abi_minor: u32,
    /// The oldest minor version of a host that the plugin works with.
    pub min_host_minor: u32,
    /// The plugin's name, as in its manifest.
    pub id: PjStr,
    /// The plugin's version, semver.
    pub version: PjStr,
    /// Empty or a JSON object: compiler, panic strategy, engine version.
    pub build_json: PjStr,
    /// Called once, before all others. Required.
    pub init: Option<
        unsafe extern "C" fn(
            host: *const PjHost,
            plugin_dir: PjStr,
            sink: *const PjSink,
            out: *mut *mut PjContext,
        ) -> i32,
    >,
    /// Looks at the devices without loading a model; one RESULT. Optional.
    pub probe: Option<unsafe extern "C" fn(ctx: *mut PjContext, sink: *const PjSink) -> i32>,
    /// Reads a model file's metadata without loading it; one RESULT. Optional.
    pub inspect: Option<unsafe extern "C" fn(ctx: *mut PjContext, path: PjStr, sink: *const PjSink) -> i32>,
    /// Loads a model: PROGRESS as it goes, then one RESULT with the model's info. Blocks, cancellable. Required.
    pub load: Option<
        unsafe extern "C" fn(
            ctx: *mut PjContext,
            spec_json: PjStr,
            sink: *const PjSink,
            out: *mut *mut PjModel,
        ) -> i32,
    >,
    /// Starts a job and returns at once. Required.
    pub submit: Option<
        unsafe extern "C" fn(
            model: *mut PjModel,
            request: *const PjRequest,
            sink: *const PjSink,
            out: *mut *mut PjJob,
        ) -> i32,
    >,
    /// Asks a job to stop: any thread, any number of times, until `release_job`. Required.
    pub cancel: Option<unsafe extern "C" fn(job: *mut PjJob)>,
    /// Frees a job after its terminal event. Required.
    pub release_job: Option<unsafe extern "C" fn(job: *mut PjJob)>,
    /// Measured memory and occupancy: one RESULT. Optional.
    pub stats: Option<unsafe extern "C" fn(model: *mut PjModel, sink: *const PjSink) -> i32>,
    /// Frees a model after its last job was released. Required.
    pub unload: Option<unsafe extern "C" fn(model: *mut PjModel)>,
    /// Looks up an optional domain such as `pj.tensors/1`; `NULL` means unsupported. Optional.
    pub get_extension: Option<unsafe extern "C" fn(ctx: *mut PjContext, id: PjStr) -> *const c_void>,
    /// Frees the context after the last model was unloaded. Required.
    pub shutdown: Option<unsafe extern "C" fn(ctx: *mut PjContext)>,
}

/// The type of the one exported symbol, `pj_plugin_entry_v1`. `NULL` refuses the host.
pub type PjPluginEntryV1 = unsafe extern "C" fn(host_minor: u32) -> *const PjPlugin;
/// Name of the one exported symbol of ABI major 1.
pub const PJ_PLUGIN_ENTRY_V1: &str = "pj_plugin_entry_v1";
