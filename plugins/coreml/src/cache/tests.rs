//! The cache with a compiler that is written here.

use std::cell::Cell;

use super::*;

/// A package with this content, and what it compiles to.
struct Fixture {
    folder: tempfile::TempDir,
    compiled: Cell<u32>,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), compiled: Cell::new(0) }
    }

    fn package(&self, content: &str) -> PathBuf {
        let package = self.folder.path().join("x.mlpackage");
        fs::create_dir_all(package.join("Data")).unwrap();
        fs::write(package.join("Data/model"), content).unwrap();
        package
    }

    fn get(&self, cache: &Cache, package: &Path, system: &str) -> Entry {
        let compile = || {
            self.compiled.set(self.compiled.get() + 1);
            let made = self.folder.path().join("temporary.mlmodelc");
            fs::create_dir_all(made.join("weights")).unwrap();
            fs::write(made.join("weights/w"), vec![0; 1000]).unwrap();
            Ok(made)
        };
        cache.get(package, system, compile).unwrap()
    }
}

#[test]
fn a_package_is_compiled_once_for_each_content_and_system() {
    let fixture = Fixture::new();
    let cache = Cache::new(&fixture.folder.path().join("cache"), 1 << 20);
    let package = fixture.package("one");
    let first = fixture.get(&cache, &package, "macos-14.5");
    assert!(!first.is_old && first.path.join("weights/w").is_file());
    assert!(!fixture.folder.path().join("temporary.mlmodelc").exists(), "it was moved");
    let again = fixture.get(&cache, &package, "macos-14.5");
    assert_eq!((again.path.clone(), again.is_old, fixture.compiled.get()), (first.path, true, 1));

    let newer = fixture.get(&cache, &package, "macos-15.0");
    let changed = fixture.get(&cache, &fixture.package("two"), "macos-14.5");
    assert_eq!(fixture.compiled.get(), 3);
    assert!(again.path != newer.path && again.path != changed.path && newer.path != changed.path);

    cache.forget(&changed);
    assert!(!changed.path.exists());
    assert!(!fixture.get(&cache, &fixture.package("two"), "macos-14.5").is_old);
}

#[test]
fn the_entries_used_longest_ago_make_room() {
    let fixture = Fixture::new();
    let cache = Cache::new(&fixture.folder.path().join("cache"), 2500);
    let entries: Vec<_> =
        ["one", "two"].map(|content| fixture.get(&cache, &fixture.package(content), "x")).into();
    // Times of files may be too coarse to tell which of two was used last.
    let old = SystemTime::now() - std::time::Duration::from_secs(60);
    File::options().write(true).open(stamp(&entries[1].path)).unwrap().set_modified(old).unwrap();
    let third = fixture.get(&cache, &fixture.package("three"), "x");
    assert!(entries[0].path.is_dir() && third.path.is_dir());
    assert!(!entries[1].path.exists() && !stamp(&entries[1].path).exists());

    let small = Cache::new(&fixture.folder.path().join("cache"), 10);
    let fourth = fixture.get(&small, &fixture.package("four"), "x");
    assert!(fourth.path.is_dir(), "what is in use stays, however large");
    assert!(!entries[0].path.exists() && !third.path.exists());
}

#[test]
fn a_failed_compilation_leaves_nothing() {
    let fixture = Fixture::new();
    let folder = fixture.folder.path().join("cache");
    let cache = Cache::new(&folder, 1 << 20);
    let error = cache.get(&fixture.package("one"), "x", || Err(Error::bad_model("no"))).unwrap_err();
    assert_eq!(error.message(), "no");
    assert_eq!(fs::read_dir(folder.join("coreml")).unwrap().count(), 0);
}
