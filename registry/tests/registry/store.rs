//! The plugins folder.

use std::fs::{self, Permissions as Mode};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::thread;
use std::time::Duration;

use pajamas_plugin_api::manifest::Permissions;
use pajamas_registry::package::verify_folder;
use pajamas_registry::{Lease, Origin, Registry, Release, Step, Store, StoreError};

use crate::support::{World, chain, install, manifest, newest, paths, put, system, versions};

/// The newest release of `echo`, fetched.
fn fetched(registry: &Registry) -> (Release, std::path::PathBuf) {
    let catalog = registry.refresh().unwrap();
    let release = newest(&catalog, "echo");
    let archive = catalog.fetch(&release, &mut |_| {}).unwrap();
    (release, archive)
}

#[test]
fn a_release_is_staged_tried_activated_and_listed() {
    let world = World::with_echo();
    let (registry, store) = (world.registry(), world.store());
    let (release, archive) = fetched(&registry);
    let locked = store.lock(Duration::ZERO).unwrap();
    let mut steps = Vec::new();
    let staged = locked.stage(&archive, &release, &mut |step| steps.push(step)).unwrap();
    assert_eq!(steps, [vec![Step::Unpacked; 4], vec![Step::Synced, Step::Staged]].concat());
    // It can be loaded from where it is, and nobody finds it there yet.
    assert_eq!(staged.dir, world.path("plugins/echo").canonicalize().unwrap().join(release.folder()));
    verify_folder(&staged.dir, release.manifest()).unwrap();
    assert_eq!(fs::metadata(&staged.dir).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(!world.path("plugins/echo/active").exists());
    let granted = Permissions { network: true, ..Permissions::default() };
    locked.activate(&staged, &granted, &mut |_| {}).unwrap();
    drop(locked);
    assert_eq!(
        fs::read_to_string(world.path("plugins/echo/active")).unwrap(),
        format!("{}\n", release.folder())
    );
    let listing = store.installed().unwrap();
    assert_eq!(listing.plugins.len(), 1);
    let found = &listing.plugins[0];
    assert!(found.is_active && !found.is_previous);
    assert_eq!((&found.granted, found.manifest.publisher.as_str()), (&granted, "acme"));
    let key = world.acme.public().clone();
    assert_eq!(found.origin, Origin::Signed { registry: "main".into(), key, archive: release.blob() });
    assert_eq!(found.installed.unwrap().to_string(), "2026-11-29T12:00:00Z");
}

#[test]
fn what_fails_its_trial_is_taken_back() {
    let world = World::with_echo();
    let (registry, store) = (world.registry(), world.store());
    let (release, archive) = fetched(&registry);
    let locked = store.lock(Duration::ZERO).unwrap();
    let staged = locked.stage(&archive, &release, &mut |_| {}).unwrap();
    locked.discard(&staged).unwrap();
    assert_eq!(paths(&world.path("plugins")), [".lock"]);
    assert!(!world.path("plugins/echo").exists());
    // A version that was there before stays.
    drop(locked);
    install(&registry, &store, "echo", "1.1.0");
    let locked = store.lock(Duration::ZERO).unwrap();
    let staged = locked.stage(&archive, &release, &mut |_| {}).unwrap();
    locked.discard(&staged).unwrap();
    assert_eq!(versions(&store, "echo"), [("1.1.0".into(), "active")]);
}

#[test]
fn versions_go_forward_and_back() {
    let world = World::with_echo();
    world.publish("echo", "1.2.0");
    let (registry, store) = (world.registry(), world.store());
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        install(&registry, &store, "echo", version);
    }
    let all = |states: [&'static str; 3]| -> Vec<_> {
        ["1.0.0", "1.1.0", "1.2.0"]
            .iter()
            .zip(states)
            .map(|(version, state)| (version.to_string(), state))
            .collect()
    };
    assert_eq!(versions(&store, "echo"), all(["", "previous", "active"]));
    let locked = store.lock(Duration::ZERO).unwrap();
    assert!(locked.rollback("echo", &mut |_| {}).unwrap().starts_with("1.1.0+"));
    assert_eq!(versions(&store, "echo"), all(["", "active", "previous"]));
    locked.rollback("echo", &mut |_| {}).unwrap();
    assert_eq!(versions(&store, "echo"), all(["", "previous", "active"]));
    // A host still serves the oldest one, and then no longer.
    let dir = |at: usize| store.installed().unwrap().plugins[at].dir.clone();
    let lease = Lease::take(&dir(0)).unwrap();
    assert!(locked.sweep().unwrap().is_empty());
    assert_eq!(versions(&store, "echo"), all(["", "previous", "active"]));
    drop(lease);
    let swept = locked.sweep().unwrap();
    assert!(swept.len() == 1 && swept[0].to_str().unwrap().contains("1.0.0+"), "{swept:?}");
    assert_eq!(versions(&store, "echo"), all(["", "previous", "active"])[1..]);
    assert!(matches!(locked.choose("echo", "../echo"), Err(StoreError::NoVersion { .. })));
    locked.remove("echo").unwrap();
    assert_eq!(paths(&world.path("plugins")), [".lock"]);
    for name in ["echo", "..", "", ".lock"] {
        assert!(matches!(locked.remove(name), Err(StoreError::NotInstalled { .. })), "{name}");
    }
}

#[test]
fn activating_again_keeps_the_way_back() {
    let world = World::with_echo();
    let (registry, store) = (world.registry(), world.store());
    install(&registry, &store, "echo", "1.0.0");
    let back = store.lock(Duration::ZERO).unwrap().rollback("echo", &mut |_| {});
    assert!(matches!(back, Err(StoreError::NoPrevious { .. })));
    for version in ["1.1.0", "1.1.0"] {
        install(&registry, &store, "echo", version);
    }
    assert_eq!(versions(&store, "echo"), [("1.0.0".into(), "previous"), ("1.1.0".into(), "active")]);
}

#[test]
fn a_damaged_version_is_repaired_by_installing_it_again() {
    let world = World::with_echo();
    let (registry, store) = (world.registry(), world.store());
    for version in ["1.0.0", "1.1.0"] {
        install(&registry, &store, "echo", version);
    }
    let active = |store: &Store| store.installed().unwrap().plugins.remove(1);
    put(&active(&store).dir.join("lib/libecho.so"), "damaged");
    install(&registry, &store, "echo", "1.1.0");
    verify_folder(&active(&store).dir, &active(&store).manifest).unwrap();
    assert_eq!(versions(&store, "echo"), [("1.0.0".into(), "previous"), ("1.1.0".into(), "active")]);
    // Without its record too.
    put(&active(&store).dir.join("install.json"), "{");
    let problem = store.installed().unwrap().problems.remove(0).to_string();
    assert!(problem.contains("install it again"), "{problem}");
    install(&registry, &store, "echo", "1.1.0");
    // And where the pointer leads nowhere.
    put(&world.path("plugins/echo/active"), "9.9.9+000000000000");
    let problem = store.installed().unwrap().problems.remove(0).to_string();
    assert!(problem.contains("9.9.9"), "{problem}");
    assert!(store.lock(Duration::ZERO).unwrap().sweep().unwrap().is_empty());
    install(&registry, &store, "echo", "1.1.0");
    assert_eq!(active(&store).manifest.version.to_string(), "1.1.0");
    assert!(!paths(&world.path("plugins")).iter().any(|path| path.contains(".staging-")));
}

#[test]
fn what_interrupted_changes_left_is_swept() {
    let world = World::with_echo();
    let store = world.store();
    install(&world.registry(), &store, "echo", "1.0.0");
    let before = paths(&world.path("plugins"));
    let version = store.installed().unwrap().plugins.remove(0).dir;
    let left = [
        world.path("plugins/.draft-a"),
        world.path("plugins/echo/.draft-b"),
        version.join(".draft-c"),
        world.path("plugins/.staging-d/lib/x"),
    ];
    left.iter().for_each(|path| put(path, "left"));
    assert_eq!(store.lock(Duration::ZERO).unwrap().sweep().unwrap().len(), left.len());
    assert_eq!(paths(&world.path("plugins")), before);
}

#[test]
fn folders_of_ones_own_are_listed_and_left_alone() {
    let world = World::with_echo();
    let (registry, store) = (world.registry(), world.store());
    let mine = world.path("plugins/echo");
    put(&mine.join("plugin.toml"), manifest("echo", "0.0.1"));
    put(&world.path("plugins/notes.txt"), "mine");
    put(&world.path("plugins/gguf/build/plugin.toml"), manifest("gguf", "0.0.1"));
    let (release, archive) = fetched(&registry);
    let locked = store.lock(Duration::ZERO).unwrap();
    let error = chain(&locked.stage(&archive, &release, &mut |_| {}).unwrap_err());
    assert!(error.contains("that no registry installed"), "{error}");
    assert!(matches!(locked.remove("echo"), Err(StoreError::Local { .. })));
    assert!(locked.sweep().unwrap().is_empty());
    let listing = store.installed().unwrap();
    let found: Vec<_> =
        listing.plugins.iter().map(|found| (found.manifest.name.as_str(), found.is_active)).collect();
    assert_eq!(found, [("echo", true), ("gguf", false)]);
    assert!(listing.plugins.iter().all(|found| found.origin == Origin::Unsigned));
    fs::rename(&mine, world.path("elsewhere")).unwrap();
    symlink(world.path("elsewhere"), &mine).unwrap();
    assert!(matches!(locked.stage(&archive, &release, &mut |_| {}), Err(StoreError::NoFolder { .. })));
}

#[test]
fn an_archive_that_is_not_the_releases_leaves_nothing() {
    let world = World::with_echo();
    let (registry, store) = (world.registry(), world.store());
    let (release, archive) = fetched(&registry);
    let good = fs::read(&archive).unwrap();
    let locked = store.lock(Duration::ZERO).unwrap();
    for content in [b"rubbish".to_vec(), good[..good.len() / 2].to_vec()] {
        put(&archive, content);
        locked.stage(&archive, &release, &mut |_| {}).unwrap_err();
        assert_eq!(paths(&world.path("plugins")), [".lock"]);
    }
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    let world = World::new();
    let dir = world.path("plugins");
    let open = |dir: &Path| Store::open(dir, system()).map_err(|error| error.to_string());
    open(&dir).unwrap();
    fs::set_permissions(&dir, Mode::from_mode(0o777)).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(error.contains("may be written by everybody") && error.contains("chmod o-w"), "{error}");
    fs::set_permissions(&dir, Mode::from_mode(0o755)).unwrap();
    fs::set_permissions(world.temp.path(), Mode::from_mode(0o777)).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(error.contains("is above it"), "{error}");
    fs::set_permissions(world.temp.path(), Mode::from_mode(0o700)).unwrap();
    // It is looked at again by every change.
    let store = open(&dir).unwrap();
    fs::set_permissions(&dir, Mode::from_mode(0o757)).unwrap();
    assert!(matches!(store.lock(Duration::ZERO), Err(StoreError::Access { .. })));
    fs::set_permissions(&dir, Mode::from_mode(0o775)).unwrap();
    // The other cases need somebody else; where nobody may be made the owner, the unit test has to do.
    if chown(&dir, None, Some(12_345)).is_ok() {
        let error = open(&dir).unwrap_err();
        assert!(error.contains("group 12345"), "{error}");
        fs::set_permissions(&dir, Mode::from_mode(0o755)).unwrap();
        chown(&dir, Some(12_345), None).unwrap();
        let error = open(&dir).unwrap_err();
        assert!(error.contains("belongs to user 12345"), "{error}");
    }
}

#[test]
fn two_installations_at_once_come_one_after_the_other() {
    let world = World::with_echo();
    let (registry, store) = (world.registry(), world.store());
    let held = store.lock(Duration::ZERO).unwrap();
    let error = chain(&store.lock(Duration::ZERO).unwrap_err());
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    thread::scope(|scope| {
        for version in ["1.0.0", "1.1.0"] {
            let (registry, store) = (&registry, &store);
            scope.spawn(move || install(registry, store, "echo", version));
        }
        drop(held);
    });
    let mut states: Vec<_> = versions(&store, "echo").into_iter().map(|(_, state)| state).collect();
    states.sort_unstable();
    assert_eq!(states, ["active", "previous"]);
    for plugin in store.installed().unwrap().plugins {
        verify_folder(&plugin.dir, &plugin.manifest).unwrap();
    }
    assert!(store.lock(Duration::ZERO).unwrap().sweep().unwrap().is_empty());
}
