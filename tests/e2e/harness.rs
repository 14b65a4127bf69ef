//! A host under test, and what it needs around it.

mod process;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub use process::{children, descriptors, is_running, resident_kb, threads};

/// Longest time for anything that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The host's binary: beside the test's own, or `PAJAMAS_TEST_HOST_BIN`.
pub fn host_bin() -> PathBuf {
    from_env("PAJAMAS_TEST_HOST_BIN").unwrap_or_else(|| profile_dir().join("pajamas-host"))
}

/// A laid-out fixture plugin, as `cargo xtask build --fixtures` makes them.
pub fn fixture(name: &str) -> PathBuf {
    let root = from_env("PAJAMAS_TEST_FIXTURES")
        .unwrap_or_else(|| profile_dir().parent().expect("profile folder has a parent").join("fixtures"));
    let dir = root.join(name);
    assert!(
        dir.join("plugin.toml").is_file(),
        "{} is missing: run cargo xtask build --fixtures",
        dir.display()
    );
    dir
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("own path");
    exe.ancestors().nth(2).expect("target/profile/deps/test").to_owned()
}

/// The folder with this repository's built plugins, and the one of a real model; `None` where they were not made.
pub fn real_model(name: &str) -> Option<(PathBuf, PathBuf)> {
    Some((built_plugins(&["gguf", "onnx", "system-tts"])?, pajamas_test_models::model(name)?))
}

/// The folder with this repository's built plugins, if these are there.
pub fn built_plugins(names: &[&str]) -> Option<PathBuf> {
    let plugins = from_env("PAJAMAS_TEST_PLUGINS")
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins"));
    let missing = names.iter().find(|plugin| !plugins.join(plugin).join("lib").is_dir());
    if let Some(plugin) = missing {
        // Loud on purpose: the run is not complete without it.
        eprintln!("skipped: the plugin {plugin} is missing (cargo xtask test makes it)");
        return None;
    }
    Some(plugins)
}

/// Runs a script of `tests/e2e/python` against the host at `url`; it says when all of its checks passed.
pub fn check_with_python(script: &str, url: &str) {
    let Some(python) = std::env::var_os("PAJAMAS_TEST_PYTHON") else {
        eprintln!(
            "skipped: PAJAMAS_TEST_PYTHON names no Python with the clients of {script} (cargo xtask test sets it)"
        );
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let output = Command::new(python).arg(script).arg(url).output().expect("python runs");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(text.contains("all checks passed"), "{text}");
}

/// How to start a host.
pub struct Setup {
    dir: TempDir,
    plugins_dir: Option<PathBuf>,
    models: Vec<PathBuf>,
    config: String,
    args: Vec<String>,
    program: PathBuf,
}

impl Setup {
    /// A host without plugins or models.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(dir.path().join("plugins")).expect("plugins folder");
        std::fs::create_dir(dir.path().join("models")).expect("models folder");
        Self {
            dir,
            plugins_dir: None,
            models: Vec::new(),
            config: String::new(),
            args: Vec::new(),
            program: host_bin(),
        }
    }

    /// A host with the `echo` plugin and its model `parrot`.
    pub fn echo() -> Self {
        Self::new().plugin("echo").model("parrot.echo", "")
    }

    /// A host with this repository's plugins and one real model.
    pub fn real(name: &str) -> Option<Self> {
        Self::real_models(&[name])
    }

    /// A host with this repository's plugins and several real models.
    pub fn real_models(names: &[&str]) -> Option<Self> {
        names.iter().try_fold(Self::new(), |setup, name| {
            let (plugins, model) = real_model(name)?;
            Some(setup.plugins(&plugins).model_dir(&model))
        })
    }

    /// Runs another program than the one that was built.
    pub fn program(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.program);
        self
    }

    /// Uses another folder of plugins.
    pub fn plugins(mut self, dir: &Path) -> Self {
        self.plugins_dir = Some(dir.to_owned());
        self
    }

    /// Adds a copy of a fixture plugin.
    pub fn plugin(self, name: &str) -> Self {
        copy_dir(&fixture(name), &self.plugin_dir(name));
        self
    }

    /// Adds a plugin in several versions, of which the first is active: `plugins/NAME/VERSION`.
    pub fn versions(self, name: &str, from: &Path, versions: &[&str]) -> Self {
        let dir = self.plugin_dir(name);
        for version in versions {
            let folder = dir.join(version);
            copy_dir(from, &folder);
            let manifest = folder.join("plugin.toml");
            let text = std::fs::read_to_string(&manifest).expect("manifest");
            let lines = text.lines().map(|line| {
                if line.starts_with("version =") {
                    format!("version = \"{version}\"")
                } else {
                    line.to_owned()
                }
            });
            std::fs::write(&manifest, lines.collect::<Vec<_>>().join("\n")).expect("manifest");
        }
        std::fs::write(dir.join("active"), versions[0]).expect("active");
        self
    }

    /// Adds the folder of a real model.
    pub fn model_dir(mut self, dir: &Path) -> Self {
        self.models.push(dir.to_owned());
        self
    }

    /// Folder of a plugin that was added.
    pub fn plugin_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join("plugins").join(name)
    }

    /// Path of a model that was added.
    pub fn model_path(&self, name: &str) -> PathBuf {
        self.dir.path().join("models").join(name)
    }

    /// A path in the temporary folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Copies a file to a path in the temporary folder.
    pub fn copy(self, from: &Path, to: &str) -> Self {
        let to = self.path(to);
        std::fs::create_dir_all(to.parent().expect("parent")).expect("folder");
        std::fs::copy(from, to).expect("copy");
        self
    }

    /// Writes a file relative to the temporary folder.
    pub fn file(self, path: &str, content: &str) -> Self {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(path, content).expect("file");
        self
    }

    /// Adds a model file.
    pub fn model(self, name: &str, content: &str) -> Self {
        self.file(&format!("models/{name}"), content)
    }

    /// Appends to the configuration file.
    pub fn config(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self.config.push('\n');
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// The command with all folders set, before its subcommand.
    pub fn command(&self, subcommand: &[&str]) -> Command {
        let config = self.dir.path().join("pajamas.toml");
        std::fs::write(&config, &self.config).expect("configuration");
        let mut command = Command::new(&self.program);
        command.args(subcommand).args(&self.args).arg("--config").arg(config);
        command.arg("--plugins").arg(self.plugins_dir.clone().unwrap_or(self.dir.path().join("plugins")));
        command.arg("--models").arg(self.dir.path().join("models"));
        for model in &self.models {
            command.arg("--models").arg(model);
        }
        command.env("PAJAMAS_CACHE_DIR", self.dir.path().join("cache"));
        command.env("PAJAMAS_STATE_DIR", self.dir.path().join("state"));
        command.env("PAJAMAS_KEYS_FILE", self.dir.path().join("keys.toml"));
        command.current_dir(self.dir.path());
        command
    }

    /// Makes an API key with these arguments and returns it.
    pub fn key(&self, args: &[&str]) -> String {
        let made = self.run(&[&["keys", "create"], args].concat());
        assert_eq!(made.code, Some(0), "{made:?}");
        made.stdout.trim().to_owned()
    }

    /// Runs a command to its end.
    pub fn run(&self, subcommand: &[&str]) -> Finished {
        let output = self.command(subcommand).stdin(Stdio::null()).output().expect("pajamas-host runs");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts the server on a free port and waits until it listens.
    pub fn start(self) -> Host {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0", "--log-level", "info"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spawn");
        let log = collect(child.stderr.take().expect("stderr"));
        let (sender, line) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout");
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let _ = sender.send(lines.next());
            // Keeps reading, so that the host never blocks on its output.
            lines.for_each(drop);
        });
        let line = line.recv_timeout(PATIENCE).ok().flatten();
        let Some(url) = line.as_deref().and_then(|line| line.strip_prefix("listening on ")) else {
            let _ = child.kill();
            panic!("the host did not start: {line:?}\n{}", log.text());
        };
        Host { url: url.to_owned(), child, log, client: reqwest::Client::new(), setup: self }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Collected output of a running host.
pub struct Log(std::sync::Arc<std::sync::Mutex<String>>);

impl Log {
    pub fn text(&self) -> String {
        self.0.lock().expect("log").clone()
    }
}

fn collect(mut pipe: impl std::io::Read + Send + 'static) -> Log {
    let text = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let log = Log(std::sync::Arc::clone(&text));
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            text.lock().expect("log").push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
    log
}

/// A running host; killed when dropped.
pub struct Host {
    pub url: String,
    pub log: Log,
    pub client: reqwest::Client,
    child: Child,
    /// Keeps the temporary folder.
    setup: Setup,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the host ---\n{}", self.log.text());
        }
    }
}

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// Text of the first choice.
    pub fn text(&self) -> &str {
        let choice = &self.body["choices"][0];
        choice["message"]["content"].as_str().or_else(|| choice["text"].as_str()).unwrap_or_default()
    }

    /// Message of an error.
    pub fn error(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

impl Host {
    /// Runs a command beside the host, to its end.
    pub fn run(&self, subcommand: &[&str]) -> Finished {
        self.setup.run(subcommand)
    }

    /// A path in the temporary folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.setup.dir.path().join(path)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("pid");
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the host did not end");
            std::thread::yield_now();
        }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let response =
            self.client.post(format!("{}{path}", self.url)).json(body).timeout(PATIENCE).send().await;
        Self::answer(response.expect("answer")).await
    }

    /// As [`Host::post`], with headers.
    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> reqwest::Response {
        let request = self.client.post(format!("{}{path}", self.url)).json(body).timeout(PATIENCE);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.expect("answer")
    }

    /// Sends a form, as a browser does.
    pub async fn form(&self, path: &str, fields: &[(&str, &[u8])]) -> reqwest::Response {
        let mut body = Vec::new();
        for (name, value) in fields {
            let head = format!(
                "--border\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n"
            );
            body.extend([head.as_bytes(), value, b"\r\n"].concat());
        }
        body.extend(b"--border--\r\n");
        let request = self.client.post(format!("{}{path}", self.url)).body(body).timeout(PATIENCE);
        let request = request.header("content-type", "multipart/form-data; boundary=border");
        request.send().await.expect("answer")
    }

    pub async fn get(&self, path: &str) -> Answer {
        let response = self.client.get(format!("{}{path}", self.url)).timeout(PATIENCE).send().await;
        Self::answer(response.expect("answer")).await
    }

    async fn answer(response: reqwest::Response) -> Answer {
        let status = response.status().as_u16();
        let text = response.text().await.expect("body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, body }
    }

    /// Asks `parrot` of the `echo` plugin, which must answer whatever else happens.
    pub async fn expect_echo(&self) {
        let answer = self.chat("parrot", "are you there").await;
        assert_eq!((answer.status, answer.text()), (200, "are you there"), "{answer:?}");
    }

    pub async fn chat(&self, model: &str, text: &str) -> Answer {
        let body = json!({"model": model, "messages": [{"role": "user", "content": text}]});
        self.post("/v1/chat/completions", &body).await
    }

    /// Data of a stream's events, `[DONE]` included.
    pub async fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let response =
            self.client.post(format!("{}{path}", self.url)).json(body).timeout(PATIENCE).send().await;
        let text = response.expect("answer").text().await.expect("body");
        text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// Waits until exactly this many slots of the first model are busy and no job waits for one.
    pub async fn until_busy(&self, slots: u64) {
        let started = Instant::now();
        loop {
            let answer = self.get("/admin/models").await;
            let stats = &answer.body["data"][0]["stats"];
            if stats["slots_busy"] == slots && stats["jobs_waiting"] == 0 {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "never {slots} busy slots: {answer:?}");
        }
    }

    /// Worker processes of this host.
    pub fn workers(&self) -> Vec<u32> {
        children(self.child.id())
    }
}

/// Joined text deltas of a chat stream.
pub fn joined(events: &[String]) -> String {
    let values = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
    values
        .filter_map(|v| {
            let choice = &v["choices"][0];
            choice["delta"]["content"].as_str().or(choice["text"].as_str()).map(str::to_owned)
        })
        .collect()
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "never happened: {what}");
        tokio::task::yield_now().await;
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("fixture") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}
