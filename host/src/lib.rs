//! pajamas-host: serves every inference runtime that a machine can use through one OpenAI-compatible API.
//!
//! [`serve`] is the whole product; `ARCHITECTURE.md` beside this crate says how a request travels.

pub mod api;
pub mod chat;
pub mod cli;
pub mod config;
mod connections;
pub mod engine;
pub mod hardware;
pub mod hooks;
pub mod install;
pub mod keys;
pub mod media;
pub mod metrics;
pub mod models;
pub mod plugins;
mod procfs;
mod serve;
pub mod shutdown;
pub mod telemetry;
pub mod text;

use std::error::Error;

pub use serve::{Parts, ServeError, serve, serve_engine};

/// An error and its sources in one line, for the log.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
