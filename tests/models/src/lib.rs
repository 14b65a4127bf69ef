//! Where the models of `cargo xtask models` are. A test that needs one which is not there is skipped, loudly.
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::path::PathBuf;

/// The file or folder of a test model, or `None`, said loudly, when it is not there.
///
/// `name` is its path in the models folder, which is `PAJAMAS_TEST_MODELS`, or where `cargo xtask models` puts it: below
/// the user's cache folder.
#[must_use]
pub fn model(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there, `cargo xtask models` fetches it", path.display());
        return None;
    }
    Some(path)
}

fn folder() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from);
    from("PAJAMAS_TEST_MODELS").unwrap_or_else(|| {
        let cache = from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache")));
        cache.unwrap_or_default().join("pajamas-host/models")
    })
}
