//! Making packages and taking them apart.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use pajamas_plugin_api::Manifest;
use pajamas_registry::Hash;
use pajamas_registry::package::{PackageLimits, pack, read_manifest, unpack, verify_folder};

use crate::support::{chain, manifest, paths, plugin, put, tree};

#[test]
fn a_folder_comes_out_as_it_went_in() {
    let temp = tempfile::tempdir().unwrap();
    let dir = plugin(temp.path(), "echo", "1.0.0");
    let packed = pack(&dir, &temp.path().join("echo.tar.zst")).unwrap();
    assert_eq!(packed.sha256, Hash::of(&fs::read(&packed.archive).unwrap()));
    assert_eq!(packed.len, fs::metadata(&packed.archive).unwrap().len());
    let listed: Vec<_> = packed.manifest.files.iter().map(|file| file.path.to_str().unwrap()).collect();
    assert_eq!(listed, ["bin/tool", "lib/libecho.so", "models/empty.txt"]);
    assert_eq!(read_manifest(&packed.archive).unwrap(), packed.manifest);
    let out = temp.path().join("out");
    fs::create_dir(&out).unwrap();
    let mut files = 0;
    unpack(&packed.archive, &out, &packed.manifest, &PackageLimits::default(), &mut || files += 1).unwrap();
    assert_eq!(files, 4);
    assert_eq!(Manifest::read(&out).unwrap(), packed.manifest);
    let mode = |path: &str| fs::metadata(out.join(path)).unwrap().permissions().mode() & 0o111;
    assert_eq!((mode("bin/tool"), mode("lib/libecho.so")), (0o111, 0));
    let content =
        |dir: &Path| -> Vec<_> { tree(dir).into_iter().filter(|(path, _)| path != "plugin.toml").collect() };
    assert_eq!(content(&out), content(&dir));
    verify_folder(&out, &packed.manifest).unwrap();
    // What was unpacked may be packed again.
    assert_eq!(pack(&out, &temp.path().join("again.tar.zst")).unwrap().sha256, packed.sha256);
    put(&out.join("lib/libecho.so"), "another");
    assert!(chain(&verify_folder(&out, &packed.manifest).unwrap_err()).contains("lib/libecho.so"));
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let one = plugin(&temp.path().join("one"), "echo", "1.0.0");
    let two = plugin(&temp.path().join("two"), "echo", "1.0.0");
    // Times, and modes beyond "may be run", are not part of it.
    fs::set_permissions(two.join("lib/libecho.so"), fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().write(true).open(two.join("lib/libecho.so")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let one = pack(&one, &temp.path().join("one.tar.zst")).unwrap();
    let two = pack(&two, &temp.path().join("two.tar.zst")).unwrap();
    assert_eq!(one.sha256, two.sha256);
}

#[test]
fn numbers_survive_the_way_through_toml_and_json() {
    let temp = tempfile::tempdir().unwrap();
    let dir = plugin(temp.path(), "echo", "1.0.0");
    let test =
        "[[self_test]]\ntask = \"generate\"\nparams = { temperature = 0.1234567890123456789, n = 3 }\n";
    put(&dir.join("plugin.toml"), manifest("echo", "1.0.0") + test);
    let packed = pack(&dir, &temp.path().join("echo.tar.zst")).unwrap();
    let json = serde_json::to_string(&packed.manifest).unwrap();
    let manifest: Manifest = serde_json::from_str(&json).unwrap();
    let out = temp.path().join("out");
    fs::create_dir(&out).unwrap();
    unpack(&packed.archive, &out, &manifest, &PackageLimits::default(), &mut || {}).unwrap();
}

#[test]
fn what_not_every_system_can_unpack_is_not_packed() {
    let temp = tempfile::tempdir().unwrap();
    let refuse = |change: &dyn Fn(&Path), expected: &str| {
        let parent = tempfile::tempdir().unwrap();
        let dir = plugin(parent.path(), "echo", "1.0.0");
        change(&dir);
        let out = temp.path().join("out.tar.zst");
        let error = chain(&pack(&dir, &out).unwrap_err());
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(paths(temp.path()), Vec::<String>::new());
    };
    refuse(&|dir| symlink("/etc/passwd", dir.join("link")).unwrap(), "\"link\", which is neither a file");
    refuse(&|dir| symlink("lib", dir.join("folder")).unwrap(), "\"folder\"");
    refuse(&|dir| drop(UnixListener::bind(dir.join("pipe")).unwrap()), "\"pipe\"");
    refuse(&|dir| put(&dir.join("lib/LIBECHO.so"), ""), "capital letters only");
    refuse(&|dir| put(&dir.join("LIB/x"), ""), "capital letters only");
    refuse(&|dir| put(&dir.join("a:b"), ""), "not every system");
    refuse(&|dir| put(&dir.join("a".repeat(150)).join("b".repeat(150)), ""), "bytes long");
    // Within 200 bytes, but tar's header has 100 for the last part.
    refuse(&|dir| put(&dir.join("a".repeat(150)), ""), "tar cannot name");
    refuse(&|dir| put(&dir.join("plugin.toml"), "name = 1"), "not a plugin manifest");
    refuse(&|dir| fs::remove_file(dir.join("plugin.toml")).unwrap(), "cannot read");
}

#[test]
fn a_package_is_not_written_into_what_it_packs() {
    let temp = tempfile::tempdir().unwrap();
    let dir = plugin(temp.path(), "echo", "1.0.0");
    let error = pack(&dir, &dir.join("lib/echo.tar.zst")).unwrap_err().to_string();
    assert!(error.contains("outside"), "{error}");
}
