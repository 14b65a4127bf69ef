//! Processes that end in the middle of an installation.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pajamas_plugin_api::manifest::Permissions;
use pajamas_registry::package::verify_folder;
use pajamas_registry::source::FolderSource;
use pajamas_registry::{PublicKey, Registry, RegistryConfig, Step, Store};

use crate::http::noise;
use crate::support::{World, install, newest, paths, plugin, put, system, versions};

/// Names the folder in which [`in_a_process_that_ends`] is to install, and the step after which it is to end.
const WORLD: &str = "PAJAMAS_REGISTRY_TEST_POWER_CUT";

/// More steps than an installation has.
const STEPS_MAX: usize = 40;

/// A world with two versions installed (if `before`) and a newer one of some pieces.
fn world(before: bool) -> World {
    let world = World::new();
    for version in ["1.0.0", "1.1.0"] {
        world.publish("echo", version);
        if before {
            install(&world.registry(), &world.store(), "echo", version);
        }
    }
    let dir = plugin(&world.path("made"), "echo", "1.2.0");
    put(&dir.join("noise"), noise(200_000));
    world.publish_folder(&dir);
    // The plugins folder, if nothing was installed into it.
    world.store();
    world
}

/// What a host would start now, by its own rule: `<name>/active` names a folder beside it with a `plugin.toml`.
fn active(world: &World) -> Option<PathBuf> {
    let plugin = world.path("plugins/echo");
    let folder = std::fs::read_to_string(plugin.join("active")).ok()?;
    let dir = plugin.join(folder.trim());
    assert!(dir.join("plugin.toml").is_file(), "{}", dir.display());
    Some(dir)
}

/// Whenever the process ends, without any chance to clean up: the old version is active and can go back to the one before
/// it, or the new one completely is and can go back to the old one. What is left disturbs nobody.
#[test]
fn whenever_an_installation_ends_one_version_is_whole_and_active() {
    for before in [true, false] {
        let mut seen = [false; 2];
        let template = world(before);
        for step in 1..STEPS_MAX {
            let world = template.copy();
            let is_done = run(&world, step);
            let store = world.store();
            let is_new = active(&world).is_some_and(|dir| dir.to_str().unwrap().contains("/1.2.0+"));
            seen[usize::from(is_new)] = true;
            check(&store, before, is_new);
            // The next installation does not care.
            install(&world.registry(), &store, "echo", "1.2.0");
            let locked = store.lock(Duration::ZERO).unwrap();
            locked.sweep().unwrap();
            check(&store, before, true);
            let left = paths(&world.path("plugins"));
            let versions = if before { 2 } else { 1 };
            assert_eq!(
                left.iter().filter(|path| path.ends_with("/plugin.toml")).count(),
                versions,
                "{left:?}"
            );
            assert!(
                !left.iter().any(|path| path.contains(".staging-") || path.contains(".draft-")),
                "{left:?}"
            );
            assert!(!paths(&world.path("cache")).iter().any(|path| path.ends_with(".part")));
            assert!(locked.sweep().unwrap().is_empty());
            if is_done {
                // Both sides of the change have been seen, so the steps do reach across it.
                assert_eq!(seen, [true, true]);
                break;
            }
            assert!(step + 1 < STEPS_MAX, "the installation has more steps than are tried");
        }
    }
}

/// What must hold at any time: what is active is whole, and so is what one can go back to.
fn check(store: &Store, before: bool, is_new: bool) {
    let states = versions(store, "echo");
    let state = |version: &str| states.iter().find(|(found, _)| found == version).map(|(_, state)| *state);
    match (before, is_new) {
        (true, true) => assert_eq!((state("1.1.0"), state("1.2.0")), (Some("previous"), Some("active"))),
        (true, false) => assert_eq!((state("1.0.0"), state("1.1.0")), (Some("previous"), Some("active"))),
        (false, true) => assert_eq!(state("1.2.0"), Some("active")),
        (false, false) => assert!(states.iter().all(|(_, state)| state.is_empty())),
    }
    for found in store.installed().unwrap().plugins {
        verify_folder(&found.dir, &found.manifest).unwrap();
    }
}

/// The same for the sweeping of what is there after any such end, which may end anywhere itself: it is done again.
#[test]
fn sweeping_after_an_end_needs_no_installation() {
    let template = world(true);
    for step in [1, 4, 7, 9, 11] {
        let world = template.copy();
        run(&world, step);
        let store = world.store();
        let is_new = active(&world).unwrap().to_str().unwrap().contains("/1.2.0+");
        store.lock(Duration::ZERO).unwrap().sweep().unwrap();
        check(&store, true, is_new);
        assert_eq!(versions(&store, "echo").len(), 2);
    }
}

/// Installs the newest version in another process that ends after `step` steps; whether it came to its end before.
fn run(world: &World, step: usize) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "power_cut::in_a_process_that_ends", "--ignored", "--nocapture"])
        .env(WORLD, format!("{step}:{}", world.temp.path().display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("begins"), "{text}");
    assert_eq!(output.status.success(), text.contains("is done"), "{text}");
    output.status.success()
}

/// The other half of [`run`].
#[test]
#[ignore = "other tests run it in a process of its own"]
fn in_a_process_that_ends() {
    let Some(setting) = std::env::var(WORLD).ok() else { return };
    let (step, dir) = setting.split_once(':').unwrap();
    let (step, dir): (usize, &Path) = (step.parse().unwrap(), dir.as_ref());
    println!("begins");
    let mut steps = 0;
    let mut progress = |_: Step| {
        steps += 1;
        if steps == step {
            std::process::abort();
        }
    };
    let root = PublicKey::read(&dir.join("root.pub")).unwrap();
    let config = RegistryConfig::new("main", root, dir.join("state"), dir.join("cache"));
    let config = RegistryConfig { system: system(), ..config };
    let registry = Registry::open(Box::new(FolderSource::new(&dir.join("registry"))), config).unwrap();
    let catalog = registry.refresh().unwrap();
    let release = newest(&catalog, "echo");
    let archive = catalog.fetch(&release, &mut progress).unwrap();
    let store = Store::open(&dir.join("plugins"), system()).unwrap();
    let locked = store.lock(Duration::ZERO).unwrap();
    let staged = locked.stage(&archive, &release, &mut progress).unwrap();
    locked.activate(&staged, &Permissions::default(), &mut progress).unwrap();
    println!("is done");
}
