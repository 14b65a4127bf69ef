//! What the hooks share: their border to the host, reading their configuration, patterns in text, and resampling pictures.
//!
//! Everything here is meant to be small and to start at once, because a hook has a new instance for each request.

pub mod config;
mod hook;
pub mod pattern;
pub mod picture;

/// Hands out the memory that a module has from its start before it asks for more: to grow a memory, and to take that back for
/// the next instance, the host changes page tables, which costs more than many a hook's own work.
#[cfg(target_arch = "wasm32")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// For [`hook!`].
pub use wit_bindgen;
