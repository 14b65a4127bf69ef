//! Commands to a host that runs: they speak its administration interface.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Map, Value, json};

use super::print::{Printer, bytes};
use super::{Error, block_on};
use crate::config::{Config, KEY_VARIABLE};
use crate::engine::SwapMode;

/// Which host.
#[derive(Debug, clap::Args)]
pub(super) struct HostArgs {
    /// The running host [default: the configured address]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A key with the scope "admin", where the host asks for one
    #[arg(long, value_name = "KEY", env = KEY_VARIABLE, hide_env_values = true)]
    key: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct SwapArgs {
    /// The plugin
    #[arg(value_name = "NAME")]
    plugin: String,
    /// The version [default: what the plugin's folder now holds or points to]
    #[arg(value_name = "VERSION")]
    version: Option<String>,
    /// How to make room [default: side by side if memory allows]
    #[arg(long, value_enum)]
    mode: Option<SwapMode>,
    /// How long streams may finish in the old version before they go on in the new one
    #[arg(long, value_name = "MS")]
    drain_timeout_ms: Option<u32>,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResetArgs {
    /// The plugin
    #[arg(value_name = "NAME")]
    plugin: String,
    #[command(flatten)]
    host: HostArgs,
}

/// `plugins swap`.
pub(super) fn swap(config: &Config, args: &SwapArgs, json: bool) -> Result<(), Error> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| value.map(|value| body.insert(name.to_owned(), value));
    set("version", args.version.as_deref().map(Value::from));
    set("mode", args.mode.map(|mode| json!(mode)));
    set("drain_timeout_ms", args.drain_timeout_ms.map(Value::from));
    let path = format!("/admin/plugins/{}/swap", args.plugin);
    let report = block_on(call(config, &args.host, &path, Some(Value::Object(body))))?;
    let mut printer = Printer::stdout();
    if json {
        return printer.json(&report);
    }
    let text = |name: &str| report[name].as_str().unwrap_or_default().replace('_', " ");
    let count = |name: &str| report[name].as_u64().unwrap_or_default();
    printer.line(format_args!(
        "{}: version {} serves instead of {} ({}); streams: {} ended in the old version, {} moved",
        text("plugin"),
        text("to"),
        text("from"),
        text("mode"),
        count("streams_drained"),
        count("streams_migrated"),
    ))?;
    let mut steps = String::new();
    for step in report["steps"].as_array().into_iter().flatten() {
        let separator = if steps.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(
            steps,
            "{separator}{} {} ms",
            step["step"].as_str().unwrap_or_default(),
            step["elapsed_ms"]
        );
    }
    printer.line(steps)
}

/// `plugins reset`.
pub(super) fn reset(config: &Config, args: &ResetArgs, json: bool) -> Result<(), Error> {
    let path = format!("/admin/plugins/{}/reset", args.plugin);
    let answer = block_on(call(config, &args.host, &path, Some(json!({}))))?;
    let mut printer = Printer::stdout();
    if json {
        return printer.json(&answer);
    }
    let lifted = answer["changed"] == true;
    printer.line(if lifted { "the quarantine is lifted" } else { "it was not in quarantine" })
}

/// `ps`: what is loaded, and what it does.
pub(super) fn ps(config: &Config, args: &HostArgs, json: bool) -> Result<(), Error> {
    let answer = block_on(call(config, args, "/admin/models", None))?;
    let mut printer = Printer::stdout();
    if json {
        return printer.json(&answer);
    }
    let loaded = answer["data"].as_array().into_iter().flatten().filter(|model| model["state"] != "unloaded");
    let row = |model: &Value| {
        let text = |name: &str| model[name].as_str().unwrap_or("-").to_owned();
        let stats = &model["stats"];
        let memory: u64 =
            stats["bytes"].as_object().into_iter().flatten().filter_map(|(_, b)| b.as_u64()).sum();
        let slots = match (stats["slots_busy"].as_u64(), stats["slots_total"].as_u64()) {
            (Some(busy), Some(total)) => format!("{busy}/{total}"),
            _ => "-".to_owned(),
        };
        let waiting = model["waiting"].as_u64().unwrap_or_default().to_string();
        let memory = if memory == 0 { "-".to_owned() } else { bytes(memory) };
        let problem = model["error"].as_str().unwrap_or_default().to_owned();
        [text("id"), text("state"), text("plugin"), memory, slots, waiting, problem]
    };
    let rows: Vec<_> = loaded.map(row).collect();
    printer.table(["NAME", "STATE", "PLUGIN", "MEMORY", "SLOTS", "WAITING", "PROBLEM"], &rows)
}

/// Asks the host: with a body it is a POST.
async fn call(config: &Config, host: &HostArgs, path: &str, body: Option<Value>) -> Result<Value, Error> {
    let url = host.url.clone().unwrap_or_else(|| format!("http://{}", reachable(config.listen)));
    let url = format!("{}{path}", url.trim_end_matches('/'));
    let client = reqwest::Client::new();
    let request = match body {
        Some(body) => client.post(&url).json(&body),
        None => client.get(&url),
    };
    let request = match &host.key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    let unreachable = |source| Error::Unreachable { url: url.clone(), source };
    let response = request.send().await.map_err(unreachable)?;
    let is_success = response.status().is_success();
    let answer: Value = response.json().await.map_err(unreachable)?;
    if is_success {
        return Ok(answer);
    }
    let message = answer["error"]["message"].as_str().unwrap_or("the host gave no reason").to_owned();
    Err(Error::Host { message })
}

/// Where a host that listens on `listen` is reached from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_listens_everywhere_is_reached_on_this_machine() {
        for (listen, expected) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
