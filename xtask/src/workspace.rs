//! Where things are: the repository, the cache folder and what the cache folder holds.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The folders that every command works with.
pub(crate) struct Workspace {
    root: PathBuf,
    cache: PathBuf,
}

impl Workspace {
    /// Finds the repository and the user's cache folder.
    pub(crate) fn locate() -> Result<Self> {
        // What `cargo run` says, because two clones with one build cache share this program.
        let own = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let Some(root) = own.parent() else {
            bail!("the xtask crate lies at the root of the file system, not inside a repository");
        };
        Ok(Self { root: root.to_owned(), cache: user_cache()?.join("pajamas-host") })
    }

    /// The repository's top folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The virtual environment that holds the build tools and the Python packages.
    pub(crate) fn tools_venv(&self) -> PathBuf {
        self.cache.join("tools/venv")
    }

    /// The folder that `cargo xtask models` fills when it is not told another.
    pub(crate) fn models(&self) -> PathBuf {
        self.cache.join("models")
    }

    /// The content of MLX's wheel.
    pub(crate) fn mlx(&self) -> PathBuf {
        self.cache.join("mlx")
    }

    /// The headers and libraries of ExecuTorch's wheel, and the shim that was compiled against them.
    pub(crate) fn executorch(&self) -> PathBuf {
        self.cache.join("executorch")
    }

    /// The folder of espeak-ng's library and data.
    pub(crate) fn espeak(&self) -> PathBuf {
        self.cache.join("espeak-ng")
    }

    /// The packages of npm that build hooks.
    pub(crate) fn node_tools(&self) -> PathBuf {
        self.cache.join("tools/componentize-js")
    }

    /// The components of the hooks that are written in other languages than Rust.
    pub(crate) fn foreign_hooks(&self) -> PathBuf {
        self.cache.join("foreign-hooks")
    }

    /// The folder of what compiling the hooks needs and leaves.
    pub(crate) fn hooks(&self) -> PathBuf {
        self.cache.join("hooks")
    }

    /// The folder of what checking for macOS leaves.
    pub(crate) fn macos(&self) -> PathBuf {
        self.cache.join("macos")
    }

    /// TensorRT-RTX's libraries as they came from their package, in `lib`.
    pub(crate) fn tensorrt(&self) -> PathBuf {
        self.cache.join("tensorrt-rtx")
    }

    /// Waits until no other xtask changes the cache folder; the lock lasts as long as the returned file is open.
    ///
    /// Two commands at once (an editor's and a terminal's) would otherwise install into the same folder.
    pub(crate) fn lock_cache(&self) -> Result<File> {
        let path = self.cache.join("xtask.lock");
        let open = || {
            fs::create_dir_all(&self.cache)?;
            let file = File::create(&path)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        };
        open().with_context(|| format!("could not lock {}", path.display()))
    }
}

/// `$XDG_CACHE_HOME`, else `~/.cache`: on macOS too, because the tests and the CI script say the same path everywhere.
fn user_cache() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("XDG_CACHE_HOME").filter(|value| Path::new(value).is_absolute()) {
        return Ok(folder.into());
    }
    match env::home_dir() {
        Some(home) => Ok(home.join(".cache")),
        None => bail!("cannot tell where to keep downloads; set HOME or XDG_CACHE_HOME to a folder"),
    }
}
