//! Somebody who publishes plugins: with the program's own commands, in a folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::host_bin;

/// A publisher called wren, with a registry called birds.
pub struct Publisher {
    dir: TempDir,
}

/// Runs a program to its end, which has to be good, and returns what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

impl Publisher {
    pub fn new() -> Self {
        let publisher = Self { dir: tempfile::tempdir().expect("folder") };
        for command in [
            &["registry", "keygen", "root.key"][..],
            &["registry", "keygen", "wren.key"],
            &["registry", "init", "birds", "--key", "root.key"],
            &["registry", "publisher", "birds", "wren", "wren.key.pub", "--key", "root.key"],
        ] {
            publisher.host(command);
        }
        publisher
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn host(&self, args: &[&str]) -> String {
        run(Command::new(host_bin()).args(args).current_dir(self.dir.path()))
    }

    /// What belongs into the configuration of those who install from here.
    pub fn client_config(&self) -> String {
        let public = std::fs::read_to_string(self.path("root.key.pub")).expect("key");
        let key = public.lines().nth(1).expect("two lines");
        format!("[registries.birds]\nlocation = {:?}\nkey = \"{key}\"", self.path("birds"))
    }

    /// Publishes a plugin in C that reads `*.NAME` files, with its manifest changed. Returns the package's hash.
    pub fn publish(&self, name: &str, version: &str, edit: impl FnOnce(String) -> String) -> String {
        self.publish_with(name, version, &|source| source, edit)
    }

    /// As [`Publisher::publish`], with `echo.c` changed too.
    pub fn publish_with(
        &self,
        name: &str,
        version: &str,
        edit_source: &dyn Fn(String) -> String,
        edit: impl FnOnce(String) -> String,
    ) -> String {
        let folder = self.path(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).expect("remove");
        }
        self.host(&["plugins", "new", "--lang", "c", "--publisher", "wren", name]);
        let change = |file: &str, edit: &dyn Fn(String) -> String| {
            let path = folder.join(file);
            std::fs::write(&path, edit(std::fs::read_to_string(&path).expect("read"))).expect("write");
        };
        let versioned = |text: String| text.replace("STR(\"0.1.0\")", &format!("STR(\"{version}\")"));
        change("echo.c", &|text| edit_source(versioned(text)));
        change("plugin.toml", &|text| {
            text.replace("version = \"0.1.0\"", &format!("version = \"{version}\""))
        });
        let manifest = std::fs::read_to_string(folder.join("plugin.toml")).expect("manifest");
        std::fs::write(folder.join("plugin.toml"), edited(manifest, edit)).expect("manifest");
        run(Command::new("make").arg("-C").arg(&folder).arg("dist"));
        let dist = format!("{name}/dist");
        let packed = self.host(&["plugins", "pack", &dist, "-o", "package.tar.zst", "--json"]);
        let packed: Value = serde_json::from_str(&packed).expect("json");
        self.host(&["registry", "add", "birds", "package.tar.zst", "--publisher-key", "wren.key"]);
        self.sign();
        packed["sha256"].as_str().expect("hash").to_owned()
    }

    pub fn sign(&self) {
        self.host(&["registry", "sign", "birds", "--key", "root.key"]);
    }

    pub fn revoke(&self, hash: &str) {
        self.host(&["registry", "revoke", "birds", hash, "--key", "root.key"]);
    }

    /// Somebody changes a byte of a package on the server.
    pub fn change_blob(&self, hash: &str) {
        let path: &Path = &self.path("birds/blobs/sha256").join(hash);
        let mut bytes = std::fs::read(path).expect("blob");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).expect("blob");
    }
}

/// Tables end a manifest: what is added at the end of the text belongs to the last one, so plain fields go to the front.
fn edited(manifest: String, edit: impl FnOnce(String) -> String) -> String {
    let edited = edit(manifest);
    let (fields, others): (Vec<&str>, Vec<&str>) =
        edited.lines().partition(|line| line.starts_with("variant = "));
    [fields, others].concat().join("\n")
}
