//! Hooks, from the file to what a client sees: those that ship with the host, examples in other languages, and `rogue`,
//! which misbehaves as it is told.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Answer, Host, PATIENCE, Setup};

/// `/admin/hooks`: what is listed, and what changes while the host runs.
mod admin;
/// `pajamas-host hooks list` and `hooks check`.
mod cli;
/// Every fault of `rogue`, with and without traffic beside it.
mod faults;
/// Files that are no hooks, or become others.
mod files;
/// Hooks in Python and JavaScript, and what they are denied.
mod foreign;
/// The examples of `docs/hooks.md`, built as it says.
mod guide;
/// Pictures, tensors and sound.
mod media;
/// Text on its way in and out.
mod text;

/// A component of this repository.
fn component(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = if name == "rogue" { "tests/fixtures/hooks" } else { "plugins/hooks" };
    root.join(folder).join(name).join(format!("{name}.wasm"))
}

/// A component that `cargo xtask test` builds of another language than Rust; `None` where it could not.
fn foreign_component(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("PAJAMAS_TEST_FOREIGN_HOOKS").map(PathBuf::from) else {
        eprintln!(
            "skipped: PAJAMAS_TEST_FOREIGN_HOOKS names no folder with {name} (cargo xtask test sets it)"
        );
        return None;
    };
    let path = folder.join(format!("{name}.wasm"));
    if path.is_file() {
        return Some(path);
    }
    let reason = std::fs::read_to_string(path.with_extension("missing"));
    eprintln!("skipped: {}", reason.unwrap_or_else(|_| format!("{} is missing", path.display())));
    None
}

/// A table of `pajamas.toml` for a component of this repository. `settings` are more lines of it.
fn table(name: &str, component_name: &str, settings: &str) -> String {
    let path = component(component_name);
    format!("[[hooks]]\nname = \"{name}\"\npath = {path:?}\n{settings}\n")
}

/// A host with `echo`, its model `parrot`, and these tables.
fn start(tables: &[String]) -> Host {
    Setup::echo().config(&tables.concat()).start()
}

/// A table for `redact` that replaces one text by another, and nothing else.
fn replace(name: &str, text: &str, replacement: &str, settings: &str) -> String {
    let mut settings = settings.to_owned();
    let rule = format!("{{ text = \"{text}\", replacement = \"{replacement}\" }}");
    let _ = write!(settings, "\nconfig = {{ kinds = [\"iban\"], patterns = [{rule}] }}");
    table(name, "redact", &settings)
}

async fn send(host: &Host, request: reqwest::RequestBuilder, what: &str) -> Answer {
    let response = request.timeout(PATIENCE).send().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let status = response.status().as_u16();
    let text = response.text().await.unwrap_or_else(|error| panic!("{what}: {error}: {}", host.log.text()));
    Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

/// `PUT /admin/hooks/{name}`.
async fn put(host: &Host, name: &str, body: &Value) -> Answer {
    send(host, host.client.put(format!("{}/admin/hooks/{name}", host.url)).json(body), name).await
}

/// `DELETE /admin/hooks/{name}`.
async fn delete(host: &Host, name: &str) -> Answer {
    send(host, host.client.delete(format!("{}/admin/hooks/{name}", host.url)), name).await
}

/// `POST /admin/hooks/{name}/reload`.
async fn reload(host: &Host, name: &str) -> Answer {
    host.post(&format!("/admin/hooks/{name}/reload"), &json!({})).await
}

/// The code of an error.
fn code(answer: &Answer) -> &str {
    answer.body["error"]["code"].as_str().unwrap_or_default()
}

/// An error with this status and code, whose message contains all of `parts`.
fn check_error(answer: &Answer, status: u16, expected_code: &str, parts: &[&str]) {
    assert_eq!((answer.status, code(answer)), (status, expected_code), "{answer:?}");
    for part in parts {
        assert!(answer.error().contains(part), "\"{part}\" is not in {answer:?}");
    }
}

/// Parrot's answer as one text.
async fn says(host: &Host, text: &str) -> String {
    let answer = host.chat("parrot", text).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().to_owned()
}
