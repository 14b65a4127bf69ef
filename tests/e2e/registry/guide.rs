//! `docs/plugins.md`, followed to the letter by somebody who has nothing of this repository but the program and the crate
//! `pajamas-plugin-api` as it is published.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::harness::{Setup, host_bin};
use crate::registry::publisher::run;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The commands of the guide behind this mark, in order.
fn commands(mark: &str) -> String {
    let guide = std::fs::read_to_string(root().join("docs/plugins.md")).expect("guide");
    let mark = format!("<!-- {mark} -->\n```console\n");
    let blocks = guide.split(&mark).skip(1);
    let commands = blocks.flat_map(|block| block.split("\n```").next().expect("the block ends").lines());
    commands.filter_map(|line| line.strip_prefix("$ ")).map(|line| format!("{line}\n")).collect()
}

/// The crate as cargo publishes it, unpacked.
fn published_crate(to: &Path) -> PathBuf {
    let target = to.join("package");
    let mut cargo = Command::new("cargo");
    cargo.args(["package", "--package", "pajamas-plugin-api", "--no-verify", "--allow-dirty", "--quiet"]);
    run(cargo.arg("--target-dir").arg(&target).current_dir(root()));
    let archive = target.join("package/pajamas-plugin-api-0.1.0.crate");
    run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(to));
    to.join("pajamas-plugin-api-0.1.0")
}

/// `registry serve`, ended when dropped.
struct Served(Child, String);

impl Served {
    fn start(dir: &Path) -> Self {
        use std::io::BufRead as _;
        let mut command = Command::new(host_bin());
        command.args(["registry", "serve"]).arg(dir).args(["--at", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("spawn");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout");
        std::io::BufReader::new(stdout).read_line(&mut line).expect("line");
        let url = line.trim().strip_prefix("serving the registry at ").expect("an address").to_owned();
        Self(child, url)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_publish_a_plugin_in_c_and_one_in_rust_and_another_machine_serves_them() {
    let folder = tempfile::tempdir().expect("folder");
    let api = published_crate(folder.path());
    let scratch = folder.path().join("work");
    std::fs::create_dir(&scratch).expect("folder");
    let bin = host_bin();
    let programs =
        format!("{}:{}", bin.parent().expect("folder").display(), std::env::var("PATH").expect("PATH"));
    // What cargo builds here is built again on every run unless it is kept: the crates that it needs take half a minute.
    let kept = bin.parent().and_then(Path::parent).expect("target folder").join("third-party");
    let follow = |mark: &str| {
        let mut shell = Command::new("bash");
        shell.args(["-e", "-u", "-c", &commands(mark)]).current_dir(&scratch).env_remove("RUSTFLAGS");
        run(shell.env("API", &api).env("PATH", &programs).env("CARGO_TARGET_DIR", &kept))
    };
    let printed = follow("try");
    assert_eq!(printed.matches(" 0 failed, 0 crashed").count(), 2, "{printed}");

    let registry = Served::start(&scratch.join("birds"));
    let public = std::fs::read_to_string(scratch.join("root.key.pub")).expect("key");
    let key = public.lines().nth(1).expect("two lines");
    let client = Setup::new()
        .config(&format!("[registries.birds]\nlocation = {:?}\nkey = \"{key}\"", registry.1))
        .model("polly.parrot", "")
        .model("menura.lyrebird", "");
    let installed = client.run(&["plugins", "install", "parrot", "lyrebird"]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let host = client.start();
    for model in ["polly", "menura"] {
        assert_eq!(host.chat(model, "hello stranger").await.text(), "hello stranger", "{model}");
    }
    follow("try later");
    let updated = host.run(&["plugins", "update"]);
    assert_eq!(updated.code, Some(0), "{updated:?}");
    for version in ["0.2.0", "0.1.0"] {
        for (plugin, model) in [("parrot", "polly"), ("lyrebird", "menura")] {
            let report = host.post(&format!("/admin/plugins/{plugin}/swap"), &json!({})).await;
            assert_eq!((report.status, &report.body["to"]), (200, &json!(version)), "{report:?}");
            assert_eq!(host.chat(model, "hello again").await.text(), "hello again", "{model} {version}");
            let back = host.run(&["plugins", "rollback", plugin]);
            assert_eq!(back.code, Some(0), "{back:?}");
        }
    }
    // Without the registry, what is installed goes on, and an installation says what is missing.
    drop(registry);
    let offline = host.run(&["plugins", "install", "parrot"]);
    assert_eq!(offline.code, Some(69), "{offline:?}");
}
