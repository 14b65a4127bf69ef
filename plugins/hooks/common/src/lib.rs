//! What the hooks share: reading their configuration, patterns in text, and resampling pictures.
//!
//! Everything here is meant to be small and to start at once, because a hook has a new instance for each request.

pub mod config;
pub mod pattern;
pub mod picture;
