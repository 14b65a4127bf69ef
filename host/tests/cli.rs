//! The command line as a user meets it: the real program, its messages and its exit codes. No plugin is run.
#![expect(clippy::unwrap_used, reason = "what a helper of a test cannot do fails the test")]

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A user with an empty home, in a working folder with a plugin whose library is missing and two models.
struct User(TempDir);

impl User {
    fn new() -> Self {
        let user = Self(tempfile::tempdir().unwrap());
        user.write(
            "plugins/broken/plugin.toml",
            "name = 'broken'\nversion = '0.1.0'\npublisher = 'p'\nlicense = 'MIT'\ndescription = 'd'\n\
             abi = '>=1.0, <2'\nentry = 'lib/broken'\nformats = ['gguf']\ntasks = ['generate']\n",
        );
        user.write("models/a.gguf", "not a model at all");
        user.write("models/b.gguf", "");
        fs::create_dir(user.0.path().join("empty")).unwrap();
        user
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pajamas-host"));
        command
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Ended {
        self.command(line).output().unwrap().into()
    }
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[test]
fn each_failure_has_a_clear_sentence_and_its_exit_code() {
    let user = User::new();
    user.write("wrong.toml", "lisen = 1");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = format!("--plugins plugins --listen {}", taken.local_addr().unwrap());
    let cases = [
        ("--lisen 1", 64, "error: unexpected argument '--lisen' found"),
        ("--listen 0.0.0.0:0", 64, "error: refusing to listen on 0.0.0.0:0"),
        ("--config wrong.toml", 64, "unknown field `lisen`"),
        ("--config none.toml", 64, "error: cannot read the configuration file"),
        ("--plugins empty --listen 127.0.0.1:0", 66, "empty holds no usable plugin"),
        ("--plugins none --listen 127.0.0.1:0", 66, "error: cannot look for plugins"),
        (&taken_port, 69, "is in use by another program"),
        ("run c hi --plugins plugins --models models", 66, "error: there is no model called \"c\""),
        (
            "run a hi --plugins plugins --models models",
            69,
            "error: no installed plugin can serve the model \"a\"",
        ),
        ("run ./models hi --plugins plugins", 65, "holds 2 models"),
        ("run ./wrong.toml hi --plugins plugins", 65, "is not a model of a known format"),
        ("run a --plugins plugins --models models", 64, "error: the prompt is empty"),
        ("models inspect c --plugins plugins --models models", 66, "there are: a, b"),
        ("plugins check empty", 66, "error: there is no plugin to check"),
    ];
    for (line, code, message) in cases {
        let ended = user.run(line);
        assert!(ended.stderr.contains(message), "{line}: {}", ended.stderr);
        assert_eq!(ended.stderr.matches("error: ").count(), 1, "{line}: printed once: {}", ended.stderr);
        assert_eq!(ended.code, Some(code), "{line}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{line}");
    }
}

#[test]
fn lists_go_to_standard_output_and_nothing_else_does() {
    let user = User::new();
    let cases = [
        (
            "models list --plugins plugins --models models",
            "NAME  FORMAT  SIZE  ALIASES  PATH\na     gguf    18 B  -        ",
        ),
        (
            "models list --json --plugins plugins --models models",
            "{\n  \"models\": [\n    {\n      \"id\": \"a\",",
        ),
        (
            "plugins list --plugins plugins",
            "NAME    VERSION  STATE     FORMATS  TASKS     DEVICES  FROM              ENGINE\nbroken  0.1.0    rejected",
        ),
        ("plugins list --json --plugins plugins", "[\n  {\n    \"name\": \"broken\","),
        ("--version", "pajamas-host "),
        ("completions zsh", "#compdef pajamas-host"),
        ("man", ""),
    ];
    for (line, beginning) in cases {
        let ended = user.run(line);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{line}");
        assert!(
            ended.stdout.starts_with(beginning) && ended.stdout.ends_with('\n'),
            "{line}: {}",
            ended.stdout
        );
    }
}

#[test]
fn variables_and_the_nearby_file_are_read_and_misspelt_variables_reported() {
    let user = User::new();
    user.write("pajamas.toml", "models_dirs = [\"models\"]");
    let mut command = user.command("models list --json");
    let ended: Ended = command
        .env("PAJAMAS_PLUGINS_DIR", "plugins")
        .env("PAJAMAS_LOG_FROMAT", "json")
        .output()
        .unwrap()
        .into();
    assert!(ended.stdout.contains("\"id\": \"b\""), "{}", ended.stdout);
    assert!(
        ended.stderr.contains("environment variable PAJAMAS_LOG_FROMAT has no meaning"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_log_can_be_json_lines() {
    let user = User::new();
    user.write("models/c.gguf", "");
    user.write("models/c.toml", "nmae = 'x'");
    let ended = user.run("models list --log-format json --plugins plugins --models models");
    let line: serde_json::Value = serde_json::from_str(ended.stderr.trim()).unwrap();
    assert_eq!(line["level"], "WARN");
    assert!(line["message"].as_str().unwrap().contains("unknown field `nmae`"), "{line}");
}

#[test]
fn the_prompt_may_come_from_standard_input() {
    let user = User::new();
    let mut child = user
        .command("run a --plugins plugins --models models")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let ended: Ended = child.wait_with_output().unwrap().into();
    // It got as far as looking for a plugin.
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
}

#[test]
fn nothing_but_the_cache_is_written_into_the_users_home() {
    let user = User::new();
    for line in ["models list", "plugins list --plugins plugins", "--plugins empty"] {
        user.run(line);
    }
    let has = |name: &str| Path::new(user.0.path()).join(name).exists();
    assert!(!has(".config") && !has(".local"));
}
