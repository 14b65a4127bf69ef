//! What the hooks share: their border to the host, reading their configuration, patterns in text, and resampling pictures.
//!
//! Everything here is meant to be small and to start at once, because a hook has a new instance for each request.

pub mod config;
mod hook;
pub mod pattern;
pub mod picture;

/// For [`hook!`].
pub use wit_bindgen;
