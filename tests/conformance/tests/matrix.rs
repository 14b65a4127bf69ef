//! Plugins of other versions work with this host, or are refused with a sentence that names both versions.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pajamas_plugin_api::native::Library;
use pajamas_plugin_api::{Event, EventSink, Flow, LoadSpec, LogSink, Part, Request, Task};
use serde_json::json;

mod fixtures;

/// Options for the compiler, minor version of the host, and the negotiated minor or a part of the refusal.
type Variant = (&'static [&'static str], u32, Result<u32, &'static str>);

const VARIANTS: &[Variant] = &[
    (&[], 0, Ok(0)),
    // Older than the host.
    (&["-DPJ_FIXTURE_OLD"], 0, Ok(0)),
    (&["-DPJ_FIXTURE_OLD"], 7, Ok(0)),
    (&["-DPJ_FIXTURE_OLD", "-DPJ_FIXTURE_MINOR=2"], 7, Ok(2)),
    // Newer than the host.
    (&["-DPJ_FIXTURE_MINOR=7"], 0, Ok(0)),
    (&["-DPJ_FIXTURE_TAIL", "-DPJ_FIXTURE_MINOR=7"], 0, Ok(0)),
    (&["-DPJ_FIXTURE_TAIL", "-DPJ_FIXTURE_MINOR=7"], 3, Ok(3)),
    // What it asks of the host.
    (&["-DPJ_FIXTURE_MIN_HOST_MINOR=5", "-DPJ_FIXTURE_MINOR=5"], 5, Ok(5)),
    (
        &["-DPJ_FIXTURE_MIN_HOST_MINOR=6", "-DPJ_FIXTURE_MINOR=7"],
        5,
        Err("needs a host of ABI 1.6 or newer, this host is 1.5"),
    ),
    // Another major.
    (&["-DPJ_FIXTURE_MAJOR=2"], 0, Err("the plugin speaks ABI 2, this host speaks ABI 1")),
    (&["-DPJ_FIXTURE_MAJOR=0"], 0, Err("the plugin speaks ABI 0, this host speaks ABI 1")),
];

#[test]
fn plugins_of_other_versions_are_served_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (options, host_minor, expected) in VARIANTS {
        let library = fixtures::build_c(options, dir.path()).unwrap();
        let opened = Library::open_as(&library, *host_minor);
        match (opened, expected) {
            (Ok(library), Ok(minor)) => {
                assert_eq!(
                    library.handshake().negotiated_minor,
                    *minor,
                    "{options:?} and host 1.{host_minor}"
                );
                assert_eq!(answer(library), "hello again", "{options:?} and host 1.{host_minor}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{options:?}: {error}"),
            (opened, expected) => panic!("{options:?}: {expected:?} is expected, found {opened:?}"),
        }
    }
}

#[test]
fn a_plugin_of_this_compiler_works() {
    let library = fixtures::plugin_dir("echo").unwrap().join("lib").join(fixtures::library_file("echo"));
    assert_eq!(answer(Library::open(&library).unwrap()), "hello again");
}

#[test]
fn a_plugin_of_another_compiler_works() {
    match other_compiler() {
        None => println!(
            "skipped: there is no second Rust compiler on this machine (`cargo xtask hooks` gets one)"
        ),
        Some(compiler) => match compiler.build() {
            Ok(library) => {
                assert_eq!(answer(Library::open(&library).unwrap()), "hello again", "{compiler:?}")
            }
            Err(problem) => println!("skipped: {compiler:?} cannot build the plugin: {problem}"),
        },
    }
}

/// A compiler that is not the one in use.
#[derive(Debug)]
enum Compiler {
    /// One of rustup's toolchains.
    Toolchain(String),
    /// Debian's, in the folder into which `cargo xtask hooks` unpacks it.
    Unpacked(PathBuf),
}

/// A compiler on this machine of another version than the one in use.
fn other_compiler() -> Option<Compiler> {
    let ours = output(Command::new("rustc").arg("--version"))?;
    let toolchains = output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    let names = toolchains.lines().filter_map(|line| line.split_whitespace().next());
    let installed = names.map(|name| Compiler::Toolchain(name.to_owned()));
    let unpacked =
        std::env::var_os("PAJAMAS_TEST_HOOK_TOOLS").map(|folder| PathBuf::from(folder).join("rust"));
    installed
        .chain(unpacked.filter(|folder| folder.join(".complete").is_file()).map(Compiler::Unpacked))
        .find(|compiler| compiler.version().is_some_and(|version| version != ours))
}

/// What a command prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Compiler {
    fn version(&self) -> Option<String> {
        match self {
            Self::Toolchain(name) => output(Command::new("rustup").args(["run", name, "rustc", "--version"])),
            Self::Unpacked(folder) => output(unpacked(folder, folder.join("usr/bin/rustc")).arg("--version")),
        }
    }

    /// Builds `echo` in a folder of its own, from the crates that are already on this machine.
    fn build(&self) -> Result<PathBuf, String> {
        let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-compiler");
        let mut cargo = match self {
            Self::Toolchain(name) => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", name, "cargo"]);
                // Set by the cargo that runs this test, for its own compiler.
                rustup.env_remove("RUSTC").env_remove("RUSTDOC").env_remove("CARGO");
                rustup
            }
            Self::Unpacked(folder) => {
                let mut cargo = unpacked(folder, "cargo");
                cargo.env("RUSTC", folder.join("usr/bin/rustc"));
                cargo
            }
        };
        cargo.args(["build", "--offline", "--quiet", "--package", "pajamas-fixture-echo", "--target-dir"]);
        cargo.arg(&target_dir).current_dir(env!("CARGO_MANIFEST_DIR"));
        fixtures::run(&mut cargo)?;
        Ok(target_dir.join("debug").join(fixtures::library_file("echo")))
    }
}

/// A command that finds the libraries of the unpacked compiler.
fn unpacked(folder: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    command.env("LD_LIBRARY_PATH", folder.join(libraries));
    command
}

/// Lets a plugin repeat "hello again" and measures it, through the host's side of the boundary.
fn answer(library: Library) -> String {
    let backend = library.init(Path::new(env!("CARGO_TARGET_TMPDIR")), Arc::new(NoLog)).unwrap();
    backend.probe().unwrap();
    let (sender, receiver) = mpsc::channel();
    let sink = Arc::new(Collector(sender));
    let spec = LoadSpec { path: fixtures::model().unwrap(), ..LoadSpec::default() };
    let model = Arc::new(backend.load(&spec, Arc::clone(&sink) as _).unwrap());
    model.stats().unwrap();
    let request = Request {
        task: Task::Generate,
        params: json!({ "max_tokens": 8 }).into(),
        parts: vec![Part::text("hello again")],
        deadline_ms: None,
    };
    let _job = model.submit(&request, sink).unwrap();
    let mut answer = String::new();
    while let Some(text) = receiver.recv_timeout(Duration::from_secs(10)).unwrap() {
        answer.push_str(&text);
    }
    answer
}

/// Passes on the tokens' texts, then `None`.
struct Collector(mpsc::Sender<Option<String>>);

impl EventSink for Collector {
    fn push(&self, event: &Event<'_>) -> Flow {
        match event {
            Event::Token { text, .. } => {
                self.0.send(Some(String::from_utf8_lossy(text).into_owned())).unwrap()
            }
            Event::Error { message, .. } => panic!("{message}"),
            Event::Done { .. } => self.0.send(None).unwrap(),
            _ => {}
        }
        Flow::Continue
    }

    fn cancelled(&self) -> bool {
        false
    }
}

struct NoLog;

impl LogSink for NoLog {
    fn enabled(&self, _: tracing::Level, _: &str) -> bool {
        false
    }

    fn log(&self, _: tracing::Level, _: &str, _: &str, _: &str) {}
}
