use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// An error and its causes, as a command line prints them.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The text of a manifest.
pub(crate) fn manifest(name: &str, version: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"{version}\"\npublisher = \"acme\"\nlicense = \"MIT\"\n\
         description = \"a test\"\nabi = \">=1.0, <2\"\nentry = \"lib/{name}\"\n"
    )
}

/// Writes a file and the folders above it.
pub(crate) fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A plugin's folder in `parent`, whose library says which version it is.
pub(crate) fn plugin(parent: &Path, name: &str, version: &str) -> PathBuf {
    let dir = parent.join(format!("{name}-{version}"));
    put(&dir.join("plugin.toml"), manifest(name, version));
    put(&dir.join(format!("lib/lib{name}.so")), format!("library {version}").repeat(1000));
    put(&dir.join("bin/tool"), "#!/bin/sh\n");
    fs::set_permissions(dir.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    put(&dir.join("models/empty.txt"), "");
    dir
}

/// Every file below `dir` with its content, by path.
pub(crate) fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                found.push((name, fs::read(&path).unwrap_or_default()));
            }
        }
    }
    found.sort();
    found
}

/// The paths of [`tree`].
pub(crate) fn paths(dir: &Path) -> Vec<String> {
    tree(dir).into_iter().map(|(path, _)| path).collect()
}
