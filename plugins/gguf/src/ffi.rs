//! Everything of llama.cpp that `llama-cpp-2` does not offer safely: a context that owns its model, decoding with an
//! abort check, loading with every parameter, LoRA adapters, and a log callback that remembers errors.
//!
//! This is the only file of the crate with unsafe code.
#![expect(unsafe_code, reason = "llama.cpp has a C interface; llama-cpp-2 covers only a part of it safely")]

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;
use pajamas_generation::{AbortCheck, Batch, DecodeError, LmRunner};
use parking_lot::Mutex;
use tracing::Level;

use crate::llama_log;

/// How a model's weights are loaded.
#[derive(Clone, Debug)]
pub(crate) struct ModelConfig {
    /// Layers to offload; `None` offloads all.
    pub gpu_layers: Option<u32>,
    /// Index of the GPU that holds the model when it is not split.
    pub main_gpu: i32,
    /// One of the `SPLIT_*` constants.
    pub split_mode: SplitMode,
    /// Share of each GPU; empty lets llama.cpp decide.
    pub tensor_split: Vec<f32>,
    /// Map the file instead of reading it.
    pub mmap: bool,
    /// Lock the weights in memory.
    pub mlock: bool,
    /// Let the CPU backend rearrange weights for its matrix kernels.
    pub repack: bool,
}

/// How a model is spread over several GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SplitMode {
    /// One GPU holds all.
    None,
    /// Each GPU holds some layers.
    Layer,
    /// Each GPU holds rows of every matrix.
    Row,
    /// Each GPU computes a part of every layer.
    Tensor,
}

/// How a context is created. Zero rope values mean the model's own.
#[derive(Clone, Debug)]
pub(crate) struct ContextConfig {
    /// Cells of the KV cache, all sequences together.
    pub cells: u32,
    /// Most tokens in one call of decode.
    pub batch: u32,
    /// Most tokens computed at once.
    pub ubatch: u32,
    /// Sequences.
    pub sequences: u32,
    /// Most rows of one ubatch whose logits are wanted; 0 means all.
    pub outputs: u32,
    /// Threads for single tokens.
    pub threads: i32,
    /// Threads for prompts and batches.
    pub threads_batch: i32,
    /// Element types of the KV cache.
    pub kv_types: (u32, u32),
    /// Flash attention: `None` lets llama.cpp decide.
    pub flash_attention: Option<bool>,
    /// One buffer of cells for all sequences.
    pub kv_unified: bool,
    /// GPUs compute all layers.
    pub on_gpu: bool,
    /// `Some(pooling)` makes an embedding context; -1 takes the model's pooling.
    pub pooling: Option<i32>,
    /// RoPE base frequency.
    pub rope_freq_base: f32,
    /// RoPE frequency scale.
    pub rope_freq_scale: f32,
}

/// What llama.cpp wants of a batch besides its columns. Reused between calls.
#[derive(Debug, Default)]
struct BatchExtras {
    counts: Vec<i32>,
    pointers: Vec<*mut i32>,
}

// SAFETY: the pointers are rebuilt from the batch before each use and never read otherwise.
unsafe impl Send for BatchExtras {}

impl BatchExtras {
    /// The batch in llama.cpp's layout; it points into `batch` and `self`.
    fn raw(&mut self, batch: &mut Batch) -> sys::llama_batch {
        let rows = batch.len();
        self.counts.resize(rows.max(self.counts.len()), 1);
        self.pointers.clear();
        self.pointers.extend(batch.sequences.iter_mut().map(std::ptr::from_mut));
        sys::llama_batch {
            n_tokens: i32::try_from(rows).unwrap_or(i32::MAX),
            token: batch.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: batch.positions.as_mut_ptr(),
            n_seq_id: self.counts.as_mut_ptr(),
            seq_id: self.pointers.as_mut_ptr(),
            logits: batch.outputs.as_mut_ptr(),
        }
    }
}

/// Where the abort callback finds the check of the decode that runs; null between decodes.
#[derive(Debug, Default)]
struct AbortSlot(AtomicPtr<c_void>);

unsafe extern "C" fn abort_callback(data: *mut c_void) -> bool {
    // SAFETY: `data` is the slot that the context owns, and llama.cpp calls this only inside a decode of the context.
    let slot = unsafe { &*data.cast::<AbortSlot>() };
    let check = slot.0.load(Ordering::Acquire).cast::<AbortCheck<'_>>();
    // SAFETY: `Context::decode` keeps the reference alive until llama_decode has returned, then stores null.
    let abort = unsafe { check.as_ref() }.is_some_and(|check| check());
    if abort {
        ABORTING.set(true);
    }
    abort
}

thread_local! {
    /// The decode that runs on this thread was told to stop: what llama.cpp calls errors now is what was asked for.
    static ABORTING: Cell<bool> = const { Cell::new(false) };
}

/// A llama.cpp context together with the model that it needs. One thread at a time.
#[derive(Debug)]
pub(crate) struct Context {
    raw: NonNull<sys::llama_context>,
    abort: Box<AbortSlot>,
    extras: BatchExtras,
    vocabulary: usize,
    embedding: usize,
    on_gpu: bool,
    _model: Arc<LlamaModel>,
}

// SAFETY: a context is bound to no thread; `&mut self` and the absence of `Sync` keep calls from overlapping.
unsafe impl Send for Context {}

/// Held while a context is created: llama.cpp writes to the model then.
static CREATING: Mutex<()> = Mutex::new(());

impl Context {
    /// A new context, or `None` when llama.cpp refuses (it has logged why).
    pub(crate) fn new(model: Arc<LlamaModel>, config: &ContextConfig) -> Option<Self> {
        let abort = Box::<AbortSlot>::default();
        let params = context_params(config, &abort);
        let guard = CREATING.lock();
        llama_log::forget_error();
        // SAFETY: the model lives as long as the context, because the context owns a share of it, and no other
        // context of it is being created (`CREATING`).
        let raw = NonNull::new(unsafe { sys::llama_init_from_model(model_ptr(&model).as_ptr(), params) })?;
        drop(guard);
        let rank = config.pooling.is_some_and(|_| {
            // SAFETY: `raw` is a live context.
            unsafe { sys::llama_pooling_type(raw.as_ptr()) == sys::LLAMA_POOLING_TYPE_RANK }
        });
        let embedding =
            if rank { model.n_cls_out() as usize } else { usize::try_from(model.n_embd_out()).unwrap_or(0) };
        let vocabulary = usize::try_from(model.n_vocab()).unwrap_or(0);
        let (extras, on_gpu) = (BatchExtras::default(), config.on_gpu);
        Some(Self { raw, abort, extras, vocabulary, embedding, on_gpu, _model: model })
    }

    /// The pooled embedding (or the scores) of a sequence of the last batch.
    pub(crate) fn embedding(&mut self, sequence: usize) -> Option<&[f32]> {
        let sequence = i32::try_from(sequence).ok()?;
        // SAFETY: the context is live; llama.cpp answers null for an unknown sequence.
        let data = NonNull::new(unsafe { sys::llama_get_embeddings_seq(self.raw.as_ptr(), sequence) })?;
        // SAFETY: the length is that of the context's pooling, read when it was created; valid until the next decode.
        Some(unsafe { std::slice::from_raw_parts(data.as_ptr(), self.embedding) })
    }

    /// Applies these adapters from the next decode on. False when llama.cpp refuses.
    pub(crate) fn set_adapters(&mut self, adapters: &[Adapter]) -> bool {
        let mut pointers: Vec<_> = adapters.iter().map(|adapter| adapter.raw.as_ptr()).collect();
        let mut scales: Vec<f32> = adapters.iter().map(|adapter| adapter.scale).collect();
        // SAFETY: both arrays have `adapters.len()` elements; the adapters belong to the context's model.
        let status = unsafe {
            sys::llama_set_adapters_lora(
                self.raw.as_ptr(),
                pointers.as_mut_ptr(),
                pointers.len(),
                scales.as_mut_ptr(),
            )
        };
        status == 0
    }
}

impl LmRunner for Context {
    fn sequence_len_max(&self) -> usize {
        // SAFETY: the context is live.
        unsafe { sys::llama_n_ctx_seq(self.raw.as_ptr()) as usize }
    }

    /// `llama_decode` waits for the CPU only.
    fn computes_elsewhere(&self) -> bool {
        self.on_gpu
    }

    /// `abort` is asked between the operations on the CPU.
    fn decode(&mut self, batch: &mut Batch, abort: AbortCheck<'_>) -> Result<(), DecodeError> {
        llama_log::forget_error();
        let check: *const AbortCheck<'_> = &raw const abort;
        self.abort.0.store(check.cast_mut().cast(), Ordering::Release);
        // SAFETY: the context is live and exclusively borrowed; the batch's arrays have `n_tokens` elements.
        let status = unsafe { sys::llama_decode(self.raw.as_ptr(), self.extras.raw(batch)) };
        ABORTING.set(false);
        self.abort.0.store(std::ptr::null_mut(), Ordering::Release);
        match status {
            0 => Ok(()),
            1 => Err(DecodeError::NoCells),
            2 => Err(DecodeError::Aborted),
            other => {
                let reason = llama_log::take_error().unwrap_or_else(|| "no reason given".to_owned());
                Err(DecodeError::Failed(format!("llama.cpp says {other}: {reason}")))
            }
        }
    }

    fn logits(&mut self, rows: &[usize]) -> Vec<Option<&[f32]>> {
        let of_row = |row: &usize| {
            let row = i32::try_from(*row).ok()?;
            // SAFETY: the context is live; llama.cpp checks the row and answers null for a wrong one.
            let data = NonNull::new(unsafe { sys::llama_get_logits_ith(self.raw.as_ptr(), row) })?;
            // SAFETY: a row of logits has one value for each token of the vocabulary, valid until the next decode, which
            // needs `&mut self`. Asking for another row does not move it.
            Some(unsafe { std::slice::from_raw_parts(data.as_ptr(), self.vocabulary) })
        };
        rows.iter().map(of_row).collect()
    }

    fn remove(&mut self, sequence: usize, from: usize) -> bool {
        let (Ok(sequence), Ok(from)) = (i32::try_from(sequence), i32::try_from(from)) else { return false };
        // SAFETY: the context is live; the memory handle belongs to it (null for an encoder, which is checked).
        unsafe {
            let memory = sys::llama_get_memory(self.raw.as_ptr());
            memory.is_null() || sys::llama_memory_seq_rm(memory, sequence, from, -1)
        }
    }

    fn copy(&mut self, source: usize, target: usize) {
        let (Ok(source), Ok(target)) = (i32::try_from(source), i32::try_from(target)) else { return };
        // SAFETY: the context is live and both sequences are below its number of sequences.
        unsafe {
            let memory = sys::llama_get_memory(self.raw.as_ptr());
            if !memory.is_null() {
                sys::llama_memory_seq_cp(memory, source, target, -1, -1);
            }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is live and this is its only owner; the model is dropped after it.
        unsafe { sys::llama_free(self.raw.as_ptr()) }
    }
}

/// A LoRA adapter, freed with its model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adapter {
    raw: NonNull<sys::llama_adapter_lora>,
    scale: f32,
}

// SAFETY: an adapter is not written to after it was loaded.
unsafe impl Send for Adapter {}
// SAFETY: as above.
unsafe impl Sync for Adapter {}

impl Adapter {
    /// Loads an adapter for `model`, or `None` when llama.cpp refuses (it has logged why).
    pub(crate) fn load(model: &LlamaModel, path: &Path, scale: f32) -> Option<Self> {
        let path = CString::new(path.to_str()?).ok()?;
        llama_log::forget_error();
        // SAFETY: the model is live and no context of it exists yet; the path is a C string.
        let raw = unsafe { sys::llama_adapter_lora_init(model_ptr(model).as_ptr(), path.as_ptr()) };
        NonNull::new(raw).map(|raw| Self { raw, scale })
    }
}

fn context_params(config: &ContextConfig, abort: &AbortSlot) -> sys::llama_context_params {
    // SAFETY: returns a plain value.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = config.cells;
    params.n_batch = config.batch;
    params.n_ubatch = config.ubatch;
    params.n_seq_max = config.sequences;
    params.n_outputs_max = config.outputs;
    params.n_threads = config.threads;
    params.n_threads_batch = config.threads_batch;
    params.type_k = config.kv_types.0 as sys::ggml_type;
    params.type_v = config.kv_types.1 as sys::ggml_type;
    params.flash_attn_type = match config.flash_attention {
        None => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        Some(true) => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        Some(false) => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    params.rope_freq_base = config.rope_freq_base;
    params.rope_freq_scale = config.rope_freq_scale;
    params.kv_unified = config.kv_unified;
    params.no_perf = true;
    params.abort_callback = Some(abort_callback);
    params.abort_callback_data = std::ptr::from_ref(abort).cast_mut().cast();
    if let Some(pooling) = config.pooling {
        params.embeddings = true;
        params.pooling_type = pooling;
    }
    params
}

const _: () = assert!(size_of::<LlamaModel>() == size_of::<NonNull<sys::llama_model>>());

/// The pointer inside a `LlamaModel`.
fn model_ptr(model: &LlamaModel) -> NonNull<sys::llama_model> {
    // SAFETY: `LlamaModel` is `repr(transparent)` over a `repr(transparent)` wrapper of this pointer; the exact version
    // of llama-cpp-2 is pinned and the size is asserted above.
    unsafe { *std::ptr::from_ref(model).cast::<NonNull<sys::llama_model>>() }
}

/// Loads a model's weights, or `None` when llama.cpp refuses (see [`take_error`]) or `progress` answers false.
pub(crate) fn load_model(
    path: &Path,
    config: &ModelConfig,
    progress: &mut dyn FnMut(f32) -> bool,
) -> Option<LlamaModel> {
    unsafe extern "C" fn report(fraction: f32, data: *mut c_void) -> bool {
        // SAFETY: `data` points to the reference below, which outlives the load.
        let progress = unsafe { &mut *data.cast::<&mut dyn FnMut(f32) -> bool>() };
        progress(fraction)
    }
    let path = CString::new(path.to_str()?).ok()?;
    // SAFETY: returns a plain value.
    let mut params = unsafe { sys::llama_model_default_params() };
    params.n_gpu_layers = config.gpu_layers.map_or(-1, |layers| i32::try_from(layers).unwrap_or(i32::MAX));
    params.main_gpu = config.main_gpu;
    params.split_mode = match config.split_mode {
        SplitMode::None => sys::LLAMA_SPLIT_MODE_NONE,
        SplitMode::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
        SplitMode::Row => sys::LLAMA_SPLIT_MODE_ROW,
        SplitMode::Tensor => sys::LLAMA_SPLIT_MODE_TENSOR,
    };
    params.load_mode = match (config.mmap, config.mlock) {
        (false, false) => sys::LLAMA_LOAD_MODE_NONE,
        (true, false) => sys::LLAMA_LOAD_MODE_MMAP,
        (false, true) => sys::LLAMA_LOAD_MODE_MLOCK,
        (true, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
    };
    params.use_extra_bufts = config.repack;
    let mut split = config.tensor_split.clone();
    if !split.is_empty() {
        // SAFETY: returns a plain value. The array must have one element for each possible device.
        split.resize(unsafe { sys::llama_max_devices() }, 0.0);
        params.tensor_split = split.as_ptr();
    }
    let mut progress = progress;
    params.progress_callback = Some(report);
    params.progress_callback_user_data = (&raw mut progress).cast();
    llama_log::forget_error();
    // SAFETY: the path, the split and the progress closure live until the call returns.
    let raw = unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) };
    // SAFETY: see `model_ptr`; the pointer is a model that nobody else owns.
    NonNull::new(raw).map(|raw| unsafe { std::mem::transmute::<NonNull<sys::llama_model>, LlamaModel>(raw) })
}

/// Loads the backend in a library that was not loaded with the others.
///
/// # Errors
/// llama.cpp's reason.
#[cfg(feature = "dynamic-backends")]
pub(crate) fn load_backend(library: &Path) -> Result<(), String> {
    let path = library.to_str().and_then(|path| CString::new(path).ok());
    let Some(path) = path else { return Err(format!("{} is not UTF-8", library.display())) };
    llama_log::forget_error();
    // SAFETY: the path is a C string. llama.cpp keeps what it loads for as long as the process lives.
    let backend = unsafe { sys::ggml_backend_load(path.as_ptr()) };
    let reason = || llama_log::take_error().unwrap_or_else(|| format!("{} is unusable", library.display()));
    if backend.is_null() { Err(reason()) } else { Ok(()) }
}

/// Elements and bytes of a block of this ggml type, or `None` for an unknown or removed type.
pub(crate) fn type_layout(id: u32) -> Option<(u64, u64)> {
    if i64::from(id) >= i64::from(sys::GGML_TYPE_COUNT) {
        return None;
    }
    // SAFETY: both functions index a table with a number that was checked to be inside.
    let (block, bytes) =
        unsafe { (sys::ggml_blck_size(id as sys::ggml_type), sys::ggml_type_size(id as sys::ggml_type)) };
    let block = u64::try_from(block).ok()?;
    (block > 0 && bytes > 0).then_some((block, bytes as u64))
}

/// llama.cpp's name of a `general.file_type`, such as `Q4_K - Medium`.
pub(crate) fn file_type_name(file_type: u32) -> String {
    // SAFETY: returns a static string for every number.
    text(unsafe { sys::llama_ftype_name(file_type as sys::llama_ftype) })
}

/// Version of the llama.cpp inside.
pub(crate) fn version() -> String {
    // SAFETY: returns a static string.
    text(unsafe { sys::llama_version() })
}

/// What the CPU backend was built for and uses, such as `AVX2 = 1 | FMA = 1`.
pub(crate) fn system_info() -> String {
    // SAFETY: returns a string that stays valid until the next call; it is copied at once.
    text(unsafe { sys::llama_print_system_info() })
}

fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: llama.cpp returns NUL-terminated strings.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn log_callback(level: sys::ggml_log_level, message: *const c_char, _: *mut c_void) {
    let level = match level {
        sys::GGML_LOG_LEVEL_CONT => None,
        // What was asked for is no error.
        sys::GGML_LOG_LEVEL_ERROR if ABORTING.get() => Some(Level::DEBUG),
        sys::GGML_LOG_LEVEL_ERROR => Some(Level::ERROR),
        sys::GGML_LOG_LEVEL_WARN => Some(Level::WARN),
        // llama.cpp prints its whole configuration at this level.
        sys::GGML_LOG_LEVEL_INFO => Some(Level::DEBUG),
        _ => Some(Level::TRACE),
    };
    llama_log::take(level, &text(message));
}

/// Sends llama.cpp's log to `tracing` and keeps its errors for [`llama_log::take_error`].
pub(crate) fn install_log() {
    // SAFETY: the callback is valid for the life of the process and uses no user data.
    unsafe {
        sys::llama_log_set(Some(log_callback), std::ptr::null_mut());
        sys::ggml_log_set(Some(log_callback), std::ptr::null_mut());
    }
}
