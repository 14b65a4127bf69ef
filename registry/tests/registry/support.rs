//! What the tests share.

use std::cell::Cell;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pajamas_plugin_api::manifest::Permissions;
use pajamas_registry::package::pack;
use pajamas_registry::source::FolderSource;
use pajamas_registry::{
    Catalog, Hash, Installed, Registry, RegistryConfig, Release, Repository, SecretKey, Signer, Store,
    System, Timestamp,
};
use semver::VersionReq;

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

thread_local! {
    /// The time of this test.
    static NOW: Cell<Timestamp> = Cell::new("2026-11-29T12:00:00Z".parse().unwrap());
}

/// Sets the time of this test.
pub(crate) fn set_time(time: &str) {
    NOW.set(time.parse().unwrap());
}

/// The time of this test, and the real disk.
pub(crate) fn system() -> System {
    System { now: || NOW.get(), ..System::default() }
}

/// How long what the tests sign is valid.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A registry with publisher `acme`, and a machine that uses it, each in a folder of its own.
pub(crate) struct World {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) root: SecretKey,
    pub(crate) acme: SecretKey,
    pub(crate) repository: Repository,
}

impl World {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = SecretKey::generate(&temp.path().join("root")).unwrap();
        let acme = SecretKey::generate(&temp.path().join("acme")).unwrap();
        let signer = Signer { key: &root, valid: DAY };
        let repository = Repository::init(&temp.path().join("registry"), &signer, system()).unwrap();
        repository.add_publisher("acme", acme.public(), &signer).unwrap();
        Self { temp, root, acme, repository }
    }

    /// The same again in a folder of its own: signing takes long in a build without optimization.
    pub(crate) fn copy(&self) -> Self {
        let temp = tempfile::tempdir().unwrap();
        copy_folder(self.temp.path(), temp.path());
        let [root, acme] = ["root", "acme"].map(|name| SecretKey::read(&temp.path().join(name)).unwrap());
        let repository = Repository::open(&temp.path().join("registry"), system()).unwrap();
        Self { temp, root, acme, repository }
    }

    /// With `echo` 1.0.0 and 1.1.0.
    pub(crate) fn with_echo() -> Self {
        let world = Self::new();
        world.publish("echo", "1.0.0");
        world.publish("echo", "1.1.0");
        world
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    pub(crate) fn signer(&self) -> Signer<'_> {
        Signer { key: &self.root, valid: DAY }
    }

    /// Adds a version of a plugin and signs the snapshot; the archive's path among the blobs.
    pub(crate) fn publish(&self, name: &str, version: &str) -> PathBuf {
        let dir = plugin(&self.path("plugins-made"), name, version);
        self.publish_folder(&dir)
    }

    pub(crate) fn publish_folder(&self, dir: &Path) -> PathBuf {
        let packed = pack(dir, &self.path("packed.tar.zst")).unwrap();
        self.repository.add(&packed.archive, &self.acme).unwrap();
        self.repository.sign(&self.signer()).unwrap();
        self.path("registry/blobs/sha256").join(packed.sha256.to_string())
    }

    pub(crate) fn config(&self) -> RegistryConfig {
        let (state, cache) = (self.path("state"), self.path("cache"));
        let config = RegistryConfig::new("main", self.root.public().clone(), state, cache);
        RegistryConfig { system: system(), lock_wait: Duration::from_secs(30), ..config }
    }

    /// The registry as this machine sees it in its folder.
    pub(crate) fn registry(&self) -> Registry {
        let source = FolderSource::new(&self.path("registry"));
        Registry::open(Box::new(source), self.config()).unwrap()
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.path("plugins"), system()).unwrap()
    }

    /// Changes a file of the registry's folder.
    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let path = self.path("registry").join(path);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Signs a file of the registry's folder, whatever is in it.
    pub(crate) fn sign_file(&self, path: &str, key: &SecretKey) {
        let path = self.path("registry").join(path);
        let signature = key.sign(&fs::read(&path).unwrap()).unwrap();
        fs::write(path.with_added_extension("minisig"), signature).unwrap();
    }

    /// Makes the snapshot fit an index file that was changed, as someone with the registry's key could.
    pub(crate) fn sign_index(&self, name_path: &str, key: &SecretKey) {
        let content = fs::read(self.path("registry").join(name_path)).unwrap();
        let path = self.path("registry/snapshot.json");
        let mut snapshot: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        snapshot["serial"] = (snapshot["serial"].as_u64().unwrap() + 1).into();
        let entry = serde_json::json!({ "sha256": Hash::of(&content).to_string(), "len": content.len() });
        snapshot["files"][name_path] = entry;
        fs::write(&path, serde_json::to_vec(&snapshot).unwrap()).unwrap();
        self.sign_file("snapshot.json", key);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// The newest release of a plugin.
pub(crate) fn newest(catalog: &Catalog<'_>, name: &str) -> Release {
    catalog.resolve(name, &VersionReq::STAR).unwrap().remove(0)
}

/// Installs and activates a version.
pub(crate) fn install(registry: &Registry, store: &Store, name: &str, version: &str) {
    let catalog = registry.refresh().unwrap();
    let release = catalog.resolve(name, &format!("={version}").parse().unwrap()).unwrap().remove(0);
    let archive = catalog.fetch(&release, &mut |_| {}).unwrap();
    let locked = store.lock(Duration::from_secs(30)).unwrap();
    let staged = locked.stage(&archive, &release, &mut |_| {}).unwrap();
    locked.activate(&staged, &Permissions::default(), &mut |_| {}).unwrap();
}

/// The versions of a plugin that are there: number, and `active`, `previous` or nothing.
pub(crate) fn versions(store: &Store, name: &str) -> Vec<(String, &'static str)> {
    let listing = store.installed().unwrap();
    assert!(listing.problems.is_empty(), "{:?}", listing.problems);
    let found = listing.plugins.iter().filter(|plugin| plugin.manifest.name == name);
    let state = |plugin: &Installed| match (plugin.is_active, plugin.is_previous) {
        (true, false) => "active",
        (false, true) => "previous",
        _ => "",
    };
    found.map(|plugin| (plugin.manifest.version.to_string(), state(plugin))).collect()
}
