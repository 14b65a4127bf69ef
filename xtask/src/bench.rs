//! `cargo xtask bench`: the cost of the host's own parts, and generation beside `llama-server`, in one run.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::build::{self, Built};
use crate::chat_client;
use crate::files;
use crate::host_process::HostProcess;
use crate::models;
use crate::process;
use crate::python::Package;
use crate::setup::Tools;
use crate::workspace::Workspace;

/// Requests that either server works on at the same time.
const SLOTS: u32 = 8;
/// Tokens of context of each request.
const CONTEXT: u32 = 1024;
/// How long the rival may take to load the model.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the script of [`modalities`] compares with.
const RIVALS: &[Package] = &[
    Package { name: "faster-whisper", version: "1.2.1" },
    Package { name: "piper-tts", version: "1.8.0" },
    // As the plugin has it.
    Package { name: "onnxruntime", version: "1.31.1" },
    Package { name: "pillow", version: "13.0.0" },
];
/// The models of that script.
const MODALITIES: &[&str] =
    &["nudenet", "piper-joe", "samples", "whisper-tiny-en", "whisper-tiny-en-int8", "whisper-tiny-en-ct2"];

/// What the script of [`mlx`] compares with: the library that the plugin is built against, and the program over it.
const MLX_RIVAL: &[Package] = &[
    Package { name: "mlx", version: "0.32.2" },
    Package { name: "mlx-cpu", version: "0.32.2" },
    Package { name: "mlx-lm", version: "0.32.2" },
];
/// The model of that script.
const MLX_MODELS: &[&str] = &["smollm2-mlx"];

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The boundary between host and worker
    Worker,
    /// What the host adds to a request
    RoundTrip,
    /// Text with the plugin gguf, beside llama-server
    Generate,
    /// Swaps and deaths under traffic
    Live,
    /// Pictures and sound, beside Python libraries
    Modalities,
    /// Text with the plugin mlx, beside mlx_lm
    Mlx,
    /// Hooks, beside native code
    Hooks,
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// What to measure [default: all]
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// A llama-server to compare with, best of the same llama.cpp; without it only the host is measured
    #[arg(long, value_name = "PATH")]
    llama_server: Option<PathBuf>,
    /// Measurements of each; the median is shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Threads of either server [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
}

pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> Result<()> {
    let tools = Tools::ensure(workspace)?;
    let models = models::ensure_for_tests(workspace, &tools)?;
    let built = build::for_tests(workspace, &tools)?;
    let client = built.host.with_file_name("pajamas-benches");
    let chosen = |group: &&Group| args.groups.is_empty() || args.groups.contains(group);
    for group in Group::value_variants().iter().filter(chosen) {
        match group {
            Group::Worker => criterion(&tools, &built, "worker"),
            Group::RoundTrip => round_trip(&built, &client),
            Group::Generate => generate(&built, &client, &models, args),
            Group::Live => live(&built, &client, &models),
            Group::Modalities => modalities(workspace, &tools, &built, args),
            Group::Mlx => mlx(workspace, &tools, &built, args),
            Group::Hooks => criterion(&tools, &built, "hooks"),
        }?;
    }
    Ok(())
}

fn criterion(tools: &Tools, built: &Built, bench: &str) -> Result<()> {
    let mut cargo = tools.cargo();
    cargo.args(["bench", "--package", "pajamas-benches", "--bench", bench]);
    process::run(cargo.env("PAJAMAS_TEST_FIXTURES", &built.fixtures))
}

/// Text with the plugin mlx, beside `mlx_lm` on the same checkpoint.
fn mlx(workspace: &Workspace, tools: &Tools, built: &Built, args: &BenchArgs) -> Result<()> {
    if !built.plugins.join("mlx/lib").is_dir() {
        println!("skipped: the plugin mlx is not built on this platform");
        return Ok(());
    }
    let models = models::ensure_named(workspace, tools, MLX_MODELS)?;
    tools.venv().install(workspace, MLX_RIVAL)?;
    let host = start_host(built, &built.plugins, &models, &[])?;
    let script = workspace.root().join("tests/benches/python/beside_mlx_lm.py");
    let mut python = Command::new(tools.venv().python());
    python.arg(script).arg(format!("http://{}", host.address())).arg(&models);
    process::run(python.arg(args.rounds.to_string()))?;
    host.stop()
}

/// Pictures and sound, beside the Python libraries for the same models.
fn modalities(workspace: &Workspace, tools: &Tools, built: &Built, args: &BenchArgs) -> Result<()> {
    let models = models::ensure_named(workspace, tools, MODALITIES)?;
    tools.venv().install(workspace, RIVALS)?;
    let threads = threads(args)?.to_string();
    let config = built.fixtures.with_file_name("bench-modalities.toml");
    fs::write(&config, format!("[plugins.onnx.options]\nthreads = {threads}\n"))?;
    let config = config.to_string_lossy().into_owned();
    let host = start_host(built, &built.plugins, &models, &["--config", &config])?;
    let script = workspace.root().join("tests/benches/python/modalities.py");
    let mut python = Command::new(tools.venv().python());
    python.arg(script).arg(format!("http://{}", host.address())).arg(&models);
    process::run(python.args([threads, args.rounds.to_string()]))?;
    host.stop()
}

fn threads(args: &BenchArgs) -> Result<usize> {
    let cores = thread::available_parallelism().context("cannot count the cores")?.get();
    Ok(args.threads.unwrap_or(cores))
}

/// What clients notice of swaps and of deaths: the host with the gguf plugin in two versions, which differ in name only.
fn live(built: &Built, client: &Path, models: &Path) -> Result<()> {
    let plugins = built.fixtures.with_file_name("bench-plugins");
    files::remove_folder(&plugins)?;
    for version in ["1.0.0", "1.1.0"] {
        let (from, to) = (built.plugins.join("gguf"), plugins.join("gguf").join(version));
        let manifest = fs::read_to_string(from.join("plugin.toml")).context("plugin.toml of gguf")?;
        let renamed = manifest.lines().map(|line| match line.strip_prefix("version =") {
            Some(_) => format!("version = \"{version}\"\n"),
            None => format!("{line}\n"),
        });
        for entry in fs::read_dir(from.join("lib")).context("the gguf plugin's lib folder")? {
            let library = entry?.path();
            files::install(&library, &to.join("lib").join(library.file_name().unwrap_or_default()))?;
        }
        fs::write(to.join("plugin.toml"), renamed.collect::<String>())?;
    }
    fs::write(plugins.join("gguf/active"), "1.0.0")?;
    let host = start_host(built, &plugins, models, &[])?;
    let (url, pid) = (format!("http://{}", host.address()), host.pid().to_string());
    process::run(Command::new(client).args(["live", "--url", &url, "--pid", &pid]))?;
    host.stop()
}

/// The host with the echo plugin, beside a bare handler that the client brings.
fn round_trip(built: &Built, client: &Path) -> Result<()> {
    let folder = built.fixtures.with_file_name("bench-models");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("parrot.echo"), "")?;
    let host = start_host(built, &built.fixtures, &folder, &[])?;
    let url = format!("http://{}", host.address());
    process::run(Command::new(client).args(["roundtrip", "--url", &url]))?;
    host.stop()
}

/// The host with the gguf plugin, in turns with the rival.
fn generate(built: &Built, client: &Path, models: &Path, args: &BenchArgs) -> Result<()> {
    let threads = threads(args)?.to_string();
    let options = format!(
        "[plugins.gguf.options]\nslots = {SLOTS}\ncontext = {CONTEXT}\nthreads = {threads}\nthreads_batch = {threads}\n"
    );
    let config = built.fixtures.with_file_name("bench.toml");
    fs::write(&config, options)?;
    let config = config.to_string_lossy().into_owned();
    let host = start_host(built, &built.plugins, models, &["--config", &config])?;
    let rival = args.llama_server.as_ref().map(|path| Rival::start(path, models, &threads)).transpose()?;
    let mut command = Command::new(client);
    command.args(["generate", "--rounds", &args.rounds.to_string()]);
    command.arg("--server").arg(format!("pajamas-host=http://{}", host.address()));
    match &rival {
        Some(rival) => {
            command.arg("--server").arg(format!("llama-server=http://{}", rival.address));
        }
        None => println!("skipped: no --llama-server was given, so there is nothing to compare with"),
    }
    process::run(&mut command)?;
    host.stop()
}

fn start_host(built: &Built, plugins: &Path, models: &Path, more: &[&str]) -> Result<HostProcess> {
    let mut command = Command::new(&built.host);
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn"]);
    command.arg("--plugins").arg(plugins).arg("--models").arg(models).args(more);
    HostProcess::start(&mut command)
}

/// A running llama-server; killed when this is dropped.
struct Rival {
    child: Child,
    address: String,
}

impl Rival {
    fn start(path: &Path, models: &Path, threads: &str) -> Result<Self> {
        let model = gguf_in(&models.join("smollm2"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(path);
        command.arg("--model").arg(model).args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        // The rival divides its context among the slots.
        let (slots, context) = (SLOTS.to_string(), (SLOTS * CONTEXT).to_string());
        command.args(["--parallel", &slots, "--ctx-size", &context, "--threads", threads]);
        command.args(["--threads-batch", threads]).stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            command.spawn().with_context(|| format!("could not start `{}`", process::display(&command)))?;
        let mut rival = Self { child, address: format!("127.0.0.1:{port}") };
        let deadline = Instant::now() + PATIENCE;
        while !chat_client::is_healthy(&rival.address) {
            if let Some(status) = rival.child.try_wait()? {
                bail!("{} ended before it was ready: {status}", path.display());
            }
            if Instant::now() >= deadline {
                bail!("{} was not ready within {} s", path.display(), PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(rival)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gguf_in(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .with_context(|| format!("{} holds no GGUF file", folder.display()))
}
