//! The log bridge: a plugin's `tracing` events reach the host.
//!
//! A dynamic library has its own copy of `tracing` with its own dispatcher, so without a bridge its events are lost.

use std::fmt::Write as _;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Where log messages go.
pub trait LogSink: Send + Sync + 'static {
    /// Whether a message of this level and target would be kept.
    fn enabled(&self, level: Level, target: &str) -> bool;
    /// Logs one message; `fields_json` is empty or a JSON object.
    fn log(&self, level: Level, target: &str, message: &str, fields_json: &str);
}

/// Sends all of this library's `tracing` events to `sink`. Only the first call in a library has an effect:
/// [`crate::export_plugin!`] makes it in `init`, so plugins never need to.
pub fn init_tracing(sink: Arc<dyn LogSink>) {
    let subscriber = tracing_subscriber::registry().with(Bridge { sink });
    // A second `init` in one process keeps the first bridge: both lead to the same host.
    drop(tracing::subscriber::set_global_default(subscriber));
}

struct Bridge {
    sink: Arc<dyn LogSink>,
}

impl<S: Subscriber> Layer<S> for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.sink.enabled(*metadata.level(), metadata.target())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let json = if fields.rest.is_empty() {
            String::new()
        } else {
            serde_json::Value::Object(fields.rest).to_string()
        };
        let metadata = event.metadata();
        self.sink.log(*metadata.level(), metadata.target(), &fields.message, &json);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        self.rest.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.put(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.put(field, value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

/// The level of a `PJ_LOG_…` number; unknown ones are TRACE.
#[must_use]
pub fn level_from_abi(level: u32) -> Level {
    match level {
        crate::abi::PJ_LOG_ERROR => Level::ERROR,
        crate::abi::PJ_LOG_WARN => Level::WARN,
        crate::abi::PJ_LOG_INFO => Level::INFO,
        crate::abi::PJ_LOG_DEBUG => Level::DEBUG,
        _ => Level::TRACE,
    }
}

/// The `PJ_LOG_…` number of a level.
#[must_use]
pub fn level_to_abi(level: Level) -> u32 {
    match level {
        Level::ERROR => crate::abi::PJ_LOG_ERROR,
        Level::WARN => crate::abi::PJ_LOG_WARN,
        Level::INFO => crate::abi::PJ_LOG_INFO,
        Level::DEBUG => crate::abi::PJ_LOG_DEBUG,
        Level::TRACE => crate::abi::PJ_LOG_TRACE,
    }
}
