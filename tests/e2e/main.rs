//! End-to-end tests: the real host, real plugins, real sockets. One binary; this is its table of contents.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says what it skips"
)]
#![expect(unreachable_pub, reason = "nothing outside uses this program's parts")]

/// Starts hosts, lays out plugins and models, sends requests.
mod harness;

/// The OpenAI API through the `echo` plugin: streams, stops, errors, limits.
mod api;
/// Speech to text, text to speech, and spoken answers.
mod audio;
/// The command line: wrong use, its messages and exit codes.
mod cli;
/// Text from an ONNX decoder with a real model.
mod decoder;
/// Every fault of the `rogue` plugin: what the user sees, and that another model still answers.
mod faults;
/// The gguf plugin with a real model: determinism, constrained output, cancellation without leaks.
mod gguf;
/// Components that see what goes in and what comes out: every interface, every fault, every limit.
mod hooks;
/// Pictures: found, classified, embedded, refused.
mod images;
/// API keys: made, used up, revoked.
mod keys;
/// Start, shutdown, load and unload, orphans, plugins in C.
mod lifecycle;
/// Memory by bytes: eviction, pins, preloading, idle time.
mod memory;
/// Pictures, sound, speech and vectors by real models.
mod modalities;
/// The official `openai` client for Python.
mod openai_client;
/// Models from a hub.
mod pull;
/// Workers that die or hang under their jobs: streams that go on, poison, quarantine.
mod recovery;
/// Plugins from registries: published, installed, tried out, updated, rolled back; selection and its reasons.
mod registry;
/// Public names that share their requests among models.
mod routes;
/// Queues, fairness, deadlines, overload.
mod scheduling;
/// Streams of chats, read event by event.
mod stream;
/// New versions of plugins under live traffic: nothing fails, bad versions do not stay, nothing grows.
mod swap;
/// The Open Inference Protocol: tensors as JSON and as binary data, and `tritonclient`.
mod v2;
