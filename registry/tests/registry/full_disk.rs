//! Disks that are full.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use pajamas_registry::source::{FolderSource, Source as _, SourceError, Transfer};
use pajamas_registry::{PublicKey, Registry, RegistryConfig, RegistryError, Store, StoreError, System};

use crate::http::noise;
use crate::support::{World, chain, install, newest, paths, plugin, put, system, versions};

/// Names the folder in which [`in_a_process_with_a_limit`] is to install.
const WORLD: &str = "PAJAMAS_REGISTRY_TEST_FULL_DISK";

/// A world with `echo` 1.0.0 installed and a 1.1.0 of 600 kB.
fn world() -> World {
    let world = World::new();
    world.publish("echo", "1.0.0");
    install(&world.registry(), &world.store(), "echo", "1.0.0");
    let dir = plugin(&world.path("made"), "echo", "1.1.0");
    put(&dir.join("noise"), noise(600_000));
    world.publish_folder(&dir);
    world
}

#[test]
fn a_disk_that_is_too_full_is_noticed_before_anything_is_written() {
    let world = world();
    let full = System { free_bytes: |_| Ok(64 * 1024 * 1024 + 500_000), ..system() };
    let config = RegistryConfig { system: full, ..world.config() };
    let registry = Registry::open(Box::new(FolderSource::new(&world.path("registry"))), config).unwrap();
    let catalog = registry.refresh().unwrap();
    let release = newest(&catalog, "echo");
    let before = paths(&world.path("cache"));
    let error = catalog.fetch(&release, &mut |_| {}).unwrap_err();
    assert!(matches!(error, RegistryError::Space(_)), "{error:?}");
    let text = chain(&error);
    assert!(text.contains("is too full") && text.contains(&release.blob().len.to_string()), "{text}");
    assert_eq!(paths(&world.path("cache")), before);
    let archive = world.registry().refresh().unwrap().fetch(&release, &mut |_| {}).unwrap();
    let store = Store::open(&world.path("plugins"), full).unwrap();
    let before = paths(&world.path("plugins"));
    let error = store.lock(Duration::ZERO).unwrap().stage(&archive, &release, &mut |_| {}).unwrap_err();
    assert!(matches!(error, StoreError::Space(_)), "{error:?}");
    assert_eq!(paths(&world.path("plugins")), before);
}

/// `/dev/full` is a device of Linux that has no room for anything.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_download_is_named() {
    let temp = tempfile::tempdir().unwrap();
    put(&temp.path().join("file"), "content");
    let mut full = fs::File::options().write(true).open("/dev/full").unwrap();
    let transfer = Transfer { len: 7, offset: 0, into: &mut full, progress: &mut |_| {} };
    let error = FolderSource::new(temp.path()).download("file", transfer).unwrap_err();
    assert!(!error.is_resumable());
    let SourceError::Store { path, source } = error else { panic!("{error:?}") };
    assert_eq!((path.as_str(), source.kind()), ("file", io::ErrorKind::StorageFull));
}

/// In a process whose files may have 256 KiB at most (`ulimit`, with the signal for it ignored), larger writes fail halfway,
/// as they do on a disk that is full. Nothing but the error may be left of them.
#[test]
fn a_write_that_fails_halfway_leaves_nothing_behind() {
    for part in ["fetch", "stage"] {
        let world = world();
        if part == "stage" {
            let registry = world.registry();
            let catalog = registry.refresh().unwrap();
            catalog.fetch(&newest(&catalog, "echo"), &mut |_| {}).unwrap();
        }
        let before = ["cache", "plugins"].map(|dir| paths(&world.path(dir)));
        // Blocks of a file's limit have 512 bytes, in some shells 1024.
        let output = Command::new("/bin/sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "full_disk::in_a_process_with_a_limit", "--ignored", "--nocapture"])
            .env(WORLD, world.temp.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains(part), "{part}: {text}");
        assert_eq!(["cache", "plugins"].map(|dir| paths(&world.path(dir))), before, "{part}");
        assert_eq!(versions(&world.store(), "echo"), [("1.0.0".into(), "active")]);
        install(&world.registry(), &world.store(), "echo", "1.1.0");
    }
}

/// The other half of [`a_write_that_fails_halfway_leaves_nothing_behind`].
#[test]
#[ignore = "another test runs it in a process of its own"]
fn in_a_process_with_a_limit() {
    let Some(dir) = std::env::var_os(WORLD).map(std::path::PathBuf::from) else { return };
    let root = PublicKey::read(&dir.join("root.pub")).unwrap();
    let config = RegistryConfig::new("main", root, dir.join("state"), dir.join("cache"));
    let config = RegistryConfig { system: system(), ..config };
    let registry = Registry::open(Box::new(FolderSource::new(&dir.join("registry"))), config).unwrap();
    let catalog = registry.refresh().unwrap();
    let release = newest(&catalog, "echo");
    let error = match catalog.fetch(&release, &mut |_| {}) {
        Err(error) => {
            println!("fetch: {}", chain(&error));
            chain(&error)
        }
        Ok(archive) => {
            let store = Store::open(&dir.join("plugins"), system()).unwrap();
            let locked = store.lock(Duration::ZERO).unwrap();
            let error = locked.stage(&archive, &release, &mut |_| {}).unwrap_err();
            println!("stage: {}", chain(&error));
            chain(&error)
        }
    };
    assert!(error.contains("File too large"), "{error}");
}
