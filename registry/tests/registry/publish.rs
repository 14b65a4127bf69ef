//! A registry's keys and publishers, as its operator changes them.

use pajamas_registry::{Repository, SecretKey, Signer};

use crate::support::{DAY, World, chain, paths, put, system};

#[test]
fn a_new_registry_has_the_files_of_the_format() {
    let world = World::new();
    world.publish("echo", "1.0.0");
    let blob = paths(&world.path("registry/blobs/sha256")).remove(0);
    let expected = [
        ".lock",
        &format!("blobs/sha256/{blob}"),
        "config.json",
        "index/ec/ho/echo",
        "keys.json",
        "keys.json.minisig",
        "keys/1.json",
        "keys/1.json.minisig",
        "keys/2.json",
        "keys/2.json.minisig",
        "snapshot.json",
        "snapshot.json.minisig",
    ];
    assert_eq!(paths(&world.path("registry")), expected);
    let opened = Repository::open(&world.path("registry"), system()).unwrap();
    opened.sign(&world.signer()).unwrap();
    assert_eq!(world.registry().refresh().unwrap().snapshot().serial, 3);
}

#[test]
fn only_the_registrys_keys_change_it() {
    let world = World::with_echo();
    let other = SecretKey::generate(&world.path("other")).unwrap();
    let signer = Signer { key: &other, valid: DAY };
    let before = paths(&world.path("registry"));
    let errors = [
        world.repository.sign(&signer).unwrap_err(),
        world.repository.renew_keys(&signer).unwrap_err(),
        world.repository.add_publisher("mallory", other.public(), &signer).unwrap_err(),
        world.repository.rotate(&other, &signer).unwrap_err(),
    ];
    for error in errors {
        assert!(chain(&error).contains("not one of the registry's keys"), "{error}");
    }
    let error = world.repository.add_publisher("acme", other.public(), &world.signer()).unwrap_err();
    assert!(chain(&error).contains("publisher \"acme\" has the key"), "{error}");
    let error = world.repository.add_publisher("two\nlines", other.public(), &world.signer()).unwrap_err();
    assert!(chain(&error).contains("on one line"), "{error}");
    assert_eq!(paths(&world.path("registry")), before);
}

#[test]
fn a_registry_is_not_made_where_something_is() {
    let world = World::new();
    put(&world.path("used/file"), "");
    let error = Repository::init(&world.path("used"), &world.signer(), system()).unwrap_err();
    assert!(chain(&error).contains("is not empty"), "{error}");
    assert!(Repository::open(&world.path("used"), system()).is_err());
}

#[test]
fn a_snapshot_names_only_archives_that_are_there() {
    let world = World::new();
    let blob = world.publish("echo", "1.0.0");
    std::fs::remove_file(&blob).unwrap();
    let error = chain(&world.repository.sign(&world.signer()).unwrap_err());
    assert!(error.contains("the archive of echo 1.0.0 is not at"), "{error}");
}
