//! Attacks on what a client trusts: changed, old, expired, revoked and wrongly signed files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use pajamas_registry::package::pack;
use pajamas_registry::source::FolderSource;
use pajamas_registry::{Registry, RegistryConfig, RegistryError, SecretKey, Signer, sign_handover};
use semver::VersionReq;

use crate::support::{DAY, World, chain, newest, paths, plugin, put, set_time};

const INDEX: &str = "index/ec/ho/echo";

/// What the client says to the registry as it is now.
fn refused(world: &World) -> RegistryError {
    let registry = world.registry();
    let result = registry.refresh().and_then(|catalog| {
        let release = catalog.resolve("echo", &VersionReq::STAR)?.remove(0);
        catalog.fetch(&release, &mut |_| {})
    });
    result.unwrap_err()
}

/// What the client says, which must contain `expected`.
fn refused_with(world: &World, expected: &str) -> RegistryError {
    let error = refused(world);
    assert!(chain(&error).contains(expected), "expected {expected:?}: {}", chain(&error));
    error
}

#[test]
fn a_good_registry_offers_what_was_published() {
    let world = World::with_echo();
    world.publish("gguf", "0.1.0");
    let registry = world.registry();
    let catalog = registry.refresh().unwrap();
    assert_eq!(catalog.names().collect::<Vec<_>>(), ["echo", "gguf"]);
    let all = catalog.all().unwrap();
    let titles: Vec<_> = all.iter().flat_map(|(_, index)| index.releases.iter().map(|r| r.title())).collect();
    assert_eq!(titles, ["echo 1.1.0", "echo 1.0.0", "gguf 0.1.0"]);
    let old = catalog.resolve("echo", &"=1.0.0".parse().unwrap()).unwrap();
    assert_eq!(old.len(), 1);
    assert_eq!((old[0].registry(), old[0].key()), ("main", world.acme.public()));
    let error = catalog.resolve("echo", &"2".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("1.1.0, 1.0.0"), "{error}");
    let error = catalog.resolve("nothing", &VersionReq::STAR).unwrap_err().to_string();
    assert!(error.contains("registry main has no plugin \"nothing\""), "{error}");
    let release = newest(&catalog, "echo");
    let archive = catalog.fetch(&release, &mut |_| {}).unwrap();
    // The second time it comes from the cache, without the source.
    fs::remove_dir_all(world.path("registry/blobs")).unwrap();
    assert_eq!(catalog.fetch(&release, &mut |_| {}).unwrap(), archive);
    // But not unseen.
    put(&archive, "rubbish");
    assert!(matches!(catalog.fetch(&release, &mut |_| {}), Err(RegistryError::Source(_))));
}

#[test]
fn variants_of_one_version_are_offered_side_by_side() {
    let world = World::with_echo();
    for variant in ["cuda", "cpu"] {
        let dir = plugin(&world.path(variant), "echo", "1.1.0");
        let text = fs::read_to_string(dir.join("plugin.toml")).unwrap();
        put(&dir.join("plugin.toml"), format!("variant = \"{variant}\"\n{text}"));
        world.publish_folder(&dir);
    }
    let registry = world.registry();
    let releases = registry.refresh().unwrap().resolve("echo", &VersionReq::STAR).unwrap();
    let titles: Vec<_> = releases.iter().map(|release| release.title()).collect();
    assert_eq!(titles, ["echo 1.1.0", "echo 1.1.0 (cpu)", "echo 1.1.0 (cuda)", "echo 1.0.0"]);
}

#[test]
fn a_changed_archive_is_refused_and_not_kept() {
    let world = World::new();
    let blob = world.publish("echo", "1.0.0");
    let good = fs::read(&blob).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    for content in [&bad, &[good.clone(), vec![0]].concat()] {
        fs::write(&blob, content).unwrap();
        refused(&world);
        assert_eq!(paths(&world.path("cache")), [".lock"]);
    }
    fs::write(&blob, &bad).unwrap();
    assert!(matches!(refused(&world), RegistryError::Blob { .. }));
    fs::write(&blob, &good[..good.len() - 1]).unwrap();
    refused_with(&world, "ended after");
}

#[test]
fn changed_files_are_refused() {
    for (file, from, to, expected) in [
        (INDEX, "MIT", "BSD", "is not the file that the snapshot"),
        (INDEX, "\n", "\n\n", "is longer than"),
        (
            "snapshot.json",
            "\"serial\": 4",
            "\"serial\": 5",
            "snapshot.json is not signed by a key that is trusted",
        ),
        ("keys.json", "\"version\": 2", "\"version\": 3", "keys.json is not signed by a key that is trusted"),
        ("snapshot.json.minisig", "timestamp:", "timestamp:1", "snapshot.json is not signed"),
        ("keys.json.minisig", "\ntrusted", "\nmistrusted", "keys.json is not signed"),
        ("config.json", "\"format\": 1", "\"format\": 7", "update it"),
        ("config.json", "blobs/sha256", "../../blobs", "relative path"),
    ] {
        let world = World::new();
        for version in ["1.0.0", "1.1.0", "1.2.0"] {
            world.publish("echo", version);
        }
        world.edit(file, from, to);
        refused_with(&world, expected);
    }
}

#[test]
fn files_of_another_kind_are_no_substitute() {
    let world = World::with_echo();
    for (from, to) in [("snapshot.json", "keys.json"), ("keys.json", "snapshot.json")] {
        let saved =
            [to, &format!("{to}.minisig")].map(|file| fs::read(world.path("registry").join(file)).unwrap());
        for end in ["", ".minisig"] {
            fs::copy(
                world.path(&format!("registry/{from}{end}")),
                world.path(&format!("registry/{to}{end}")),
            )
            .unwrap();
        }
        refused_with(&world, "is not what a registry");
        fs::write(world.path("registry").join(to), &saved[0]).unwrap();
        fs::write(world.path(&format!("registry/{to}.minisig")), &saved[1]).unwrap();
    }
    world.registry().refresh().unwrap();
}

/// The registry's signed files as they are now, to be put back later.
fn save(world: &World, file: &str) -> impl Fn() {
    let files = [file.to_owned(), format!("{file}.minisig")].map(|file| world.path("registry").join(file));
    let contents = files.clone().map(|path| fs::read(path).unwrap());
    move || files.iter().zip(&contents).for_each(|(path, content)| fs::write(path, content).unwrap())
}

#[test]
fn nothing_goes_back() {
    let world = World::with_echo();
    let (restore_snapshot, restore_keys) = (save(&world, "snapshot.json"), save(&world, "keys.json"));
    world.registry().refresh().unwrap();
    world.repository.sign(&world.signer()).unwrap();
    world.repository.renew_keys(&world.signer()).unwrap();
    let (newer_snapshot, newer_keys) = (save(&world, "snapshot.json"), save(&world, "keys.json"));
    world.registry().refresh().unwrap();
    restore_snapshot();
    assert!(matches!(
        refused(&world),
        RegistryError::Rollback { file: "snapshot.json", seen: 4, offered: 3 }
    ));
    newer_snapshot();
    restore_keys();
    assert!(matches!(refused(&world), RegistryError::Rollback { file: "keys.json", seen: 3, offered: 2 }));
    newer_keys();
    world.registry().refresh().unwrap();
    // The same number for something else, signed as it should be.
    world.edit("snapshot.json", "\"revoked\": []", "\"revoked\": [ ]");
    world.sign_file("snapshot.json", &world.root);
    assert!(matches!(refused(&world), RegistryError::Forked { file: "snapshot.json", number: 4 }));
    // Another machine has seen nothing.
    restore_snapshot();
    fs::remove_dir_all(world.path("state")).unwrap();
    world.registry().refresh().unwrap();
}

#[test]
fn what_has_expired_is_refused() {
    let world = World::with_echo();
    let registry = world.registry();
    let catalog = registry.refresh().unwrap();
    let release = newest(&catalog, "echo");
    set_time("2026-12-01T12:00:00Z");
    assert!(matches!(refused(&world), RegistryError::Expired { file: "keys.json", .. }));
    // What was refreshed in time does not last either.
    assert!(matches!(catalog.fetch(&release, &mut |_| {}), Err(RegistryError::Expired { .. })));
    world.repository.renew_keys(&world.signer()).unwrap();
    let error = refused_with(&world, "snapshot.json of registry main expired at 2026-11-30T12:00:00Z");
    assert!(matches!(error, RegistryError::Expired { file: "snapshot.json", .. }));
    assert!(matches!(registry.refresh(), Err(RegistryError::Expired { file: "snapshot.json", .. })));
    world.repository.sign(&world.signer()).unwrap();
    world.registry().refresh().unwrap();
}

#[test]
fn revoked_archives_are_refused_even_if_they_are_in_the_cache() {
    let world = World::with_echo();
    let registry = world.registry();
    let catalog = registry.refresh().unwrap();
    let release = newest(&catalog, "echo");
    catalog.fetch(&release, &mut |_| {}).unwrap();
    world.repository.revoke(release.blob().sha256, &world.signer()).unwrap();
    let catalog = registry.refresh().unwrap();
    assert!(matches!(catalog.fetch(&release, &mut |_| {}), Err(RegistryError::Revoked { .. })));
    let index = catalog.index("echo").unwrap();
    assert_eq!((index.releases.len(), index.rejected.len()), (1, 1));
    assert_eq!(newest(&catalog, "echo").title(), "echo 1.0.0");
    let error = catalog.resolve("echo", &"=1.1.0".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("echo 1.1.0 was revoked by registry main"), "{error}");
    // It stays revoked.
    world.repository.sign(&world.signer()).unwrap();
    assert!(registry.refresh().unwrap().snapshot().revoked.contains(&release.blob().sha256));
}

#[test]
fn a_registry_cannot_forge_a_publishers_release() {
    let world = World::new();
    world.publish("echo", "1.0.0");
    // The line of another registry, whose acme is somebody else, signed into this one's snapshot.
    let other = World::new();
    let evil = plugin(&other.path("evil"), "echo", "6.6.6");
    other.publish_folder(&evil);
    let index = world.path("registry").join(INDEX);
    let lines = [&index, &other.path("registry").join(INDEX)].map(|path| fs::read_to_string(path).unwrap());
    fs::write(&index, lines.concat()).unwrap();
    world.sign_index(INDEX, &world.root);
    let registry = world.registry();
    let catalog = registry.refresh().unwrap();
    let found = catalog.index("echo").unwrap();
    assert_eq!((found.releases.len(), found.rejected.len()), (1, 1));
    assert!(matches!(found.rejected[0].reason, RegistryError::ReleaseSignature { .. }));
    assert_eq!(newest(&catalog, "echo").title(), "echo 1.0.0");
    // Nor can the operator's tools be made to sign it.
    let error = world.repository.sign(&world.signer()).unwrap_err().to_string();
    assert!(error.contains("echo 6.6.6") && error.contains("not signed"), "{error}");
    // A changed line of a good release is no release.
    fs::write(&index, lines[0].replace("\"network\":false", "\"network\":true")).unwrap();
    world.sign_index(INDEX, &world.root);
    assert!(matches!(refused(&world), RegistryError::ReleaseSignature { .. }));
    // Nor one of a publisher that nobody knows.
    fs::write(&index, lines[0].replace("acme", "acne")).unwrap();
    world.sign_index(INDEX, &world.root);
    assert!(matches!(refused(&world), RegistryError::NoPublisher { .. }));
}

#[test]
fn a_line_that_cannot_be_read_hides_no_other() {
    let world = World::new();
    world.publish("echo", "1.0.0");
    let index = world.path("registry").join(INDEX);
    let text = fs::read_to_string(&index).unwrap();
    let newer = text.replace("\"license\"", "\"licence\"");
    let elsewhere = text.replace("\"name\":\"echo\"", "\"name\":\"gguf\"");
    let escaping = text.replace("lib/libecho.so", "../../libecho.so");
    fs::write(&index, format!("{newer}not JSON\n{elsewhere}{escaping}{text}")).unwrap();
    world.sign_index(INDEX, &world.root);
    let registry = world.registry();
    let index = registry.refresh().unwrap().index("echo").unwrap();
    assert_eq!((index.releases.len(), index.rejected.len()), (1, 4));
    assert!(index.rejected.iter().all(|rejected| matches!(rejected.reason, RegistryError::Format(_))));
}

#[test]
fn a_publishers_new_key_has_to_be_signed_over() {
    let world = World::with_echo();
    let registry = world.registry();
    let catalog = registry.refresh().unwrap();
    catalog.fetch(&newest(&catalog, "echo"), &mut |_| {}).unwrap();
    let [second, third, thief] =
        ["second", "third", "thief"].map(|name| SecretKey::generate(&world.path(name)).unwrap());
    // Twice signed over, while the client looks away.
    for (old, new) in [(&world.acme, &second), (&second, &third)] {
        let handover = sign_handover("acme", old, new.public()).unwrap();
        world.repository.change_publisher("acme", new.public(), Some(&handover), &world.signer()).unwrap();
        world.repository.resign("acme", new).unwrap();
        world.repository.sign(&world.signer()).unwrap();
    }
    let catalog = registry.refresh().unwrap();
    assert_eq!(newest(&catalog, "echo").key(), third.public());
    catalog.fetch(&newest(&catalog, "echo"), &mut |_| {}).unwrap();
    // Replaced by the registry alone.
    let handover = sign_handover("acme", &thief, thief.public()).unwrap();
    let forged = world.repository.change_publisher("acme", thief.public(), Some(&handover), &world.signer());
    assert!(forged.is_err());
    world.repository.change_publisher("acme", thief.public(), None, &world.signer()).unwrap();
    world.repository.resign("acme", &thief).unwrap();
    world.repository.sign(&world.signer()).unwrap();
    let error = refused_with(&world, "ask the publisher whether this change is theirs");
    assert!(matches!(&error, RegistryError::PublisherChanged { pinned, offered, .. }
        if pinned == third.public() && offered == thief.public()));
    registry.forget_publisher("acme").unwrap();
    let catalog = registry.refresh().unwrap();
    assert_eq!(newest(&catalog, "echo").key(), thief.public());
}

#[test]
fn what_another_process_came_to_trust_meanwhile_counts() {
    let world = World::with_echo();
    let (early, late) = (world.registry(), world.registry());
    let catalog = early.refresh().unwrap();
    let release = newest(&catalog, "echo");
    let other = SecretKey::generate(&world.path("other")).unwrap();
    world.repository.change_publisher("acme", other.public(), None, &world.signer()).unwrap();
    world.repository.resign("acme", &other).unwrap();
    world.repository.sign(&world.signer()).unwrap();
    let newer = late.refresh().unwrap();
    newer.fetch(&newest(&newer, "echo"), &mut |_| {}).unwrap();
    assert!(matches!(catalog.fetch(&release, &mut |_| {}), Err(RegistryError::PublisherChanged { .. })));
}

#[test]
fn the_registrys_keys_change_step_by_step() {
    let world = World::with_echo();
    world.registry().refresh().unwrap();
    let keys = ["b", "c", "d"].map(|name| SecretKey::generate(&world.path(name)).unwrap());
    let mut old = &world.root;
    for key in &keys {
        world.repository.rotate(old, &Signer { key, valid: DAY }).unwrap();
        old = key;
    }
    // The root key signs no more.
    assert!(world.repository.sign(&world.signer()).is_err());
    // A client that has missed all of it, and new ones that were given the first key or a later one.
    world.registry().refresh().unwrap();
    for root in [world.root.public(), keys[0].public(), keys[1].public(), keys[2].public()] {
        let state_dir = world.path(&format!("state-{}", &root.to_string()[..20].replace('/', "_")));
        let config = RegistryConfig { root_key: root.clone(), state_dir, ..world.config() };
        let source = FolderSource::new(&world.path("registry"));
        let registry = Registry::open(Box::new(source), config).unwrap();
        registry.refresh().unwrap();
    }
}

#[test]
fn wrong_changes_of_the_registrys_keys_are_refused() {
    let world = World::with_echo();
    world.registry().refresh().unwrap();
    let thief = SecretKey::generate(&world.path("thief")).unwrap();
    let restore = save(&world, "keys.json");
    // A thief's key, signed by itself.
    world.edit("keys.json", &world.root.public().to_string(), &thief.public().to_string());
    world.edit("keys.json", "\"version\": 2", "\"version\": 3");
    world.sign_file("keys.json", &thief);
    refused_with(&world, "keys.json is not signed by a key that is trusted");
    // The same with a step in between that is as wrong.
    world.edit("keys.json", "\"version\": 3", "\"version\": 4");
    world.sign_file("keys.json", &thief);
    let step = fs::read_to_string(world.path("registry/keys.json")).unwrap();
    put(&world.path("registry/keys/3.json"), step.replace("\"version\": 4", "\"version\": 3"));
    world.sign_file("keys/3.json", &thief);
    refused_with(&world, "keys.json is not signed by a key that is trusted");
    // A number that does not grow.
    restore();
    world.edit("keys.json", &world.root.public().to_string(), &thief.public().to_string());
    world.sign_file("keys.json", &world.root);
    assert!(matches!(refused(&world), RegistryError::Forked { file: "keys.json", number: 2 }));
    // A snapshot that is signed by somebody who is no key of the registry.
    restore();
    world.sign_file("snapshot.json", &thief);
    refused_with(&world, "snapshot.json is not signed by a key that is trusted");
}

#[test]
fn a_number_far_away_does_not_keep_the_client_busy() {
    let world = World::with_echo();
    world.registry().refresh().unwrap();
    let thief = SecretKey::generate(&world.path("thief")).unwrap();
    world.edit("keys.json", "\"version\": 2", &format!("\"version\": {}", u64::pow(2, 53) - 1));
    world.sign_file("keys.json", &thief);
    refused_with(&world, "keys.json is not signed");
    world.edit(
        "keys.json",
        &format!("\"version\": {}", u64::pow(2, 53) - 1),
        "\"version\": 18446744073709551615",
    );
    refused_with(&world, "at most 9007199254740991 is allowed");
}

#[test]
fn what_was_remembered_is_not_lost_silently() {
    let world = World::with_echo();
    world.registry().refresh().unwrap();
    let state = world.path("state/main.json");
    let good = fs::read(&state).unwrap();
    put(&state, &good[..good.len() / 2]);
    refused_with(&world, "remove it to trust the registry anew");
    fs::remove_file(&state).unwrap();
    world.registry().refresh().unwrap();
    fs::set_permissions(world.path("state"), fs::Permissions::from_mode(0o777)).unwrap();
    let source = Box::new(FolderSource::new(&world.path("registry")));
    assert!(matches!(Registry::open(source, world.config()), Err(RegistryError::Access(_))));
    fs::set_permissions(world.path("state"), fs::Permissions::from_mode(0o755)).unwrap();
    let config = RegistryConfig { name: "../evil".into(), ..world.config() };
    let source = FolderSource::new(&world.path("registry"));
    assert!(Registry::open(Box::new(source), config).is_err());
}

#[test]
fn the_cache_keeps_to_its_size() {
    let world = World::with_echo();
    let config = RegistryConfig { cache_bytes_max: 1, ..world.config() };
    let source = FolderSource::new(&world.path("registry"));
    let registry = Registry::open(Box::new(source), config).unwrap();
    let catalog = registry.refresh().unwrap();
    put(&world.path("cache/mine.txt"), "not an archive");
    for release in catalog.index("echo").unwrap().releases {
        let archive = catalog.fetch(&release, &mut |_| {}).unwrap();
        let name = archive.file_name().unwrap().to_str().unwrap();
        assert_eq!(paths(&world.path("cache")), [".lock", name, "mine.txt"]);
    }
}

#[test]
fn a_package_that_no_client_would_install_is_not_published() {
    let world = World::new();
    let dir = plugin(&world.path("made"), "echo", "1.0.0");
    let packed = pack(&dir, &world.path("echo.tar.zst")).unwrap();
    let other = SecretKey::generate(&world.path("other")).unwrap();
    let error = |archive: &str, key| chain(&world.repository.add(&world.path(archive), key).unwrap_err());
    assert!(error("echo.tar.zst", &other).contains("has the key"));
    put(&world.path("junk"), "junk");
    assert!(error("junk", &world.acme).contains("cannot be unpacked"));
    world.repository.add(&packed.archive, &world.acme).unwrap();
    // Again is fine, but other bytes are not.
    world.repository.add(&packed.archive, &world.acme).unwrap();
    put(&dir.join("more"), "more");
    pack(&dir, &world.path("echo.tar.zst")).unwrap();
    assert!(error("echo.tar.zst", &world.acme).contains("echo 1.0.0 already"));
    assert!(!paths(&world.path("registry")).iter().any(|path| path.contains(".draft-")));
}
