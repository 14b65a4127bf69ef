//! Where MLX's operations are queued: one stream for all threads.
//!
//! An ordinary stream of MLX belongs to the thread that made it, has a computing thread of its own, and neither ever ends: a
//! host that loads and unloads would collect them. MLX also offers streams that any thread may use, but one at a time.
#![expect(unsafe_code, reason = "mlx-rs does not offer streams that several threads may use")]

use std::sync::OnceLock;

use mlx_rs::{Device, Stream, with_stream};
use parking_lot::Mutex;

use crate::device::Place;

/// A stream that any thread may use while it holds [`COMPUTING`].
struct Shared(mlx_sys::mlx_stream);

// SAFETY: the stream was made for use in any thread, and uses of it do not overlap, see `run`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Held by the thread that computes. Models take turns, which costs nothing: one computation uses all cores, or the GPU.
static COMPUTING: Mutex<()> = Mutex::new(());
static CPU: OnceLock<Shared> = OnceLock::new();
static GPU: OnceLock<Shared> = OnceLock::new();

/// Runs `body` with all of its computations in `place`, when it is this thread's turn. What `body` asks for it must also
/// evaluate. Calls must not be nested.
pub(crate) fn run<T>(place: Place, body: impl FnOnce() -> T) -> T {
    let turn = COMPUTING.lock();
    let (cell, device, kind) = match place {
        Place::Cpu => (&CPU, Device::cpu(), mlx_sys::mlx_device_type__MLX_CPU),
        Place::Gpu => (&GPU, Device::gpu(), mlx_sys::mlx_device_type__MLX_GPU),
    };
    let shared = cell.get_or_init(|| {
        // SAFETY: makes a device, a stream on it that lives as long as the process, and frees the device's handle.
        unsafe {
            let device = mlx_sys::mlx_device_new_type(kind, 0);
            let stream = mlx_sys::mlx_stream_new_thread_unsafe(device);
            mlx_sys::mlx_device_free(device);
            Shared(stream)
        }
    });
    // SAFETY: the stream lives, and this thread is the only one that uses it.
    let status = unsafe { mlx_sys::mlx_set_default_stream(shared.0) };
    let result = match Stream::try_default_on_device(&device) {
        Ok(stream) if status == 0 => with_stream(&stream, body),
        // MLX has reported why; on its own stream the computation is right too.
        _ => body(),
    };
    drop(turn);
    result
}
