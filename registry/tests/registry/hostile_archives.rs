//! Archives that were made to do harm.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::FileEntry;
use pajamas_registry::Hash;
use pajamas_registry::package::{PackageLimits, pack, read_manifest, unpack};
use tar::{EntryType, Header};

use crate::support::{chain, manifest, paths, plugin};

/// The manifest of a package with these files.
fn listing(files: &[(&str, &[u8])]) -> Manifest {
    let mut manifest = Manifest::parse(&manifest("echo", "1.0.0"), Path::new("plugin.toml")).unwrap();
    let entry = |(path, content): &(&str, &[u8])| {
        let (sha256, len) = (Hash::of(content).to_string(), content.len() as u64);
        FileEntry { path: path.into(), sha256, len }
    };
    manifest.files = files.iter().map(entry).collect();
    manifest
}

/// An archive that is written entry by entry, with no care for what is allowed.
struct Hostile {
    tar: Vec<u8>,
}

impl Hostile {
    /// Begins with the manifest, as every package does.
    fn new(manifest: &Manifest) -> Self {
        let text = toml::to_string(manifest).unwrap();
        Self { tar: Vec::new() }.file("plugin.toml", text.as_bytes())
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, content)
    }

    fn entry(self, path: &str, kind: EntryType, content: &[u8]) -> Self {
        self.raw(path, kind, content, content.len() as u64)
    }

    /// An entry whose header may claim another length.
    fn raw(mut self, path: &str, kind: EntryType, content: &[u8], len: u64) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(len);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    fn write(mut self, path: &Path) {
        self.tar.extend_from_slice(&[0; 1024]);
        fs::write(path, zstd::encode_all(self.tar.as_slice(), 1).unwrap()).unwrap();
    }

    /// Unpacks it within a folder of its own: the error, if it was refused. Nothing may appear outside.
    fn unpack(self, manifest: &Manifest) -> Result<(), String> {
        let temp = tempfile::tempdir().unwrap();
        self.write(&temp.path().join("a.tar.zst"));
        unpack_in(temp.path(), manifest)
    }
}

fn unpack_in(temp: &Path, manifest: &Manifest) -> Result<(), String> {
    let dest = temp.join("in/dest");
    fs::create_dir_all(&dest).unwrap();
    let result = unpack(&temp.join("a.tar.zst"), &dest, manifest, &PackageLimits::default(), &mut || {});
    fs::remove_dir_all(&dest).unwrap();
    assert_eq!(paths(temp), ["a.tar.zst"], "something was written outside of the folder");
    result.map_err(|error| chain(&error))
}

fn refused(archive: Hostile, manifest: &Manifest, expected: &str) {
    let error = archive.unpack(manifest).unwrap_err();
    assert!(error.contains(expected), "expected {expected:?}: {error}");
}

#[test]
fn the_builder_of_these_tests_makes_good_archives_too() {
    let manifest = listing(&[("lib/echo", b"content")]);
    Hostile::new(&manifest).file("lib/echo", b"content").unpack(&manifest).unwrap();
    let folder = Hostile::new(&manifest).entry("lib/", EntryType::Directory, b"");
    folder.file("lib/echo", b"content").unpack(&manifest).unwrap();
}

#[test]
fn paths_that_leave_the_folder_are_refused_in_archives_and_in_manifests() {
    let good = listing(&[]);
    for (path, expected) in [
        ("../evil", "\"..\""),
        ("lib/../../evil", "\"..\""),
        ("/tmp/evil", "absolute"),
        ("lib//evil", "empty parts"),
        ("./evil", "\".\""),
        ("lib\\..\\evil", "not every system"),
        ("C:evil", "not every system"),
        ("evil\u{7f}", "not every system"),
        ("", "0 bytes"),
    ] {
        refused(Hostile::new(&good).file(path, b"x"), &good, expected);
        let folder = format!("{path}/");
        refused(Hostile::new(&good).entry(&folder, EntryType::Directory, b""), &good, "the package has");
        // A manifest that asks for it is no better.
        let listed = listing(&[(path, b"x")]);
        refused(Hostile::new(&listed).file(path, b"x"), &listed, "field \"files\"");
    }
}

#[test]
fn only_files_and_folders_are_unpacked() {
    let manifest = listing(&[("lib/echo", b"")]);
    for (kind, expected) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
        (EntryType::Continuous, "not known"),
        (EntryType::GNUSparse, "a GNU extension"),
        (EntryType::new(b'V'), "not known"),
    ] {
        refused(Hostile::new(&manifest).entry("lib/echo", kind, b""), &manifest, expected);
    }
}

#[test]
fn headers_of_other_formats_are_refused() {
    let manifest = listing(&[("lib/echo", b"content")]);
    for mut header in [Header::new_gnu(), Header::new_old()] {
        let mut archive = Hostile::new(&manifest).file("lib/echo", b"content");
        header.set_path("lib/echo").unwrap();
        header.set_mode(0o644);
        header.set_size(7);
        header.set_cksum();
        let at = archive.tar.len() - 1024;
        archive.tar[at..at + 512].copy_from_slice(header.as_bytes());
        refused(archive, &manifest, "another format than ustar");
    }
}

#[test]
fn extensions_that_rename_or_resize_the_next_entry_are_refused() {
    let manifest = listing(&[("lib/echo", b"content")]);
    let pax = |record: &str, kind| {
        let text = format!("{} {record}\n", record.len() + 4);
        Hostile::new(&manifest).entry("pax", kind, text.as_bytes()).file("lib/echo", b"content")
    };
    for record in
        ["path=../../evil", "path=/tmp/evil", "linkpath=/etc/pw", "size=99999999999", "path=lib/echo"]
    {
        refused(pax(record, EntryType::XHeader), &manifest, "a PAX extension");
        refused(pax(record, EntryType::XGlobalHeader), &manifest, "a PAX extension");
    }
    let long = Hostile::new(&manifest).entry("././@LongLink", EntryType::GNULongName, b"../../evil\0");
    refused(long.file("lib/echo", b"content"), &manifest, "a GNU extension");
    let long = Hostile::new(&manifest).entry("././@LongLink", EntryType::GNULongLink, b"/etc/passwd\0");
    refused(long.file("lib/echo", b"content"), &manifest, "a GNU extension");
    // A path that the header's prefix completes.
    let mut archive = Hostile::new(&manifest).file("evil", b"content");
    let at = archive.tar.len() - 1024;
    let mut header = Header::from_byte_slice(&archive.tar[at..at + 512]).clone();
    header.as_ustar_mut().unwrap().prefix[..5].copy_from_slice(b"../..");
    header.set_cksum();
    archive.tar[at..at + 512].copy_from_slice(header.as_bytes());
    refused(archive, &manifest, "\"..\"");
}

#[test]
fn what_is_there_twice_or_differs_in_case_is_refused() {
    let manifest = listing(&[("lib/echo", b"content")]);
    let twice = Hostile::new(&manifest).file("lib/echo", b"content").file("lib/echo", b"content");
    refused(twice, &manifest, "not listed in the manifest, or is there twice");
    let case = Hostile::new(&manifest).file("lib/echo", b"content").file("lib/ECHO", b"content");
    refused(case, &manifest, "not listed in the manifest");
    let manifests =
        Hostile::new(&manifest).file("plugin.toml", toml::to_string(&manifest).unwrap().as_bytes());
    refused(manifests.file("lib/echo", b"content"), &manifest, "is there twice");
    let folder = Hostile::new(&manifest).entry("lib/", EntryType::Directory, b"");
    refused(folder.entry("lib", EntryType::Directory, b""), &manifest, "is there twice");
    for paths in [["lib/echo", "lib/ECHO"], ["lib/a", "LIB/b"], ["lib/a", "lib/a"], ["lib", "lib/a"]] {
        let listed = listing(&[(paths[0], b"x"), (paths[1], b"x")]);
        let archive = Hostile::new(&listed).file(paths[0], b"x").file(paths[1], b"x");
        refused(archive, &listed, "field \"files\"");
    }
}

#[test]
fn what_differs_from_the_manifest_is_refused() {
    let manifest = listing(&[("lib/echo", b"content")]);
    let archive = || Hostile::new(&manifest);
    refused(archive().file("lib/echo", b"CONTENT"), &manifest, "not the one that the manifest lists");
    refused(
        archive().file("lib/echo", b"content and more"),
        &manifest,
        "not the one that the manifest lists",
    );
    refused(archive().file("lib/echo", b"c"), &manifest, "not the one that the manifest lists");
    refused(archive(), &manifest, "lacks \"lib/echo\"");
    refused(archive().file("lib/echo", b"content").file("lib/x", b""), &manifest, "not listed");
    refused(archive().file("lib/echo", b"content").file("install.json", b"{}"), &manifest, "not listed");
    refused(archive().entry("share", EntryType::Directory, b""), &manifest, "no folder of a listed file");
    refused(Hostile { tar: Vec::new() }.file("lib/echo", b"content"), &manifest, "lacks \"plugin.toml\"");
    let mut other = manifest.clone();
    other.permissions.network = true;
    refused(
        Hostile::new(&other).file("lib/echo", b"content"),
        &manifest,
        "not the manifest that its publisher signed",
    );
}

#[test]
fn bombs_are_bounded_by_what_was_declared() {
    let manifest = listing(&[("lib/echo", b"content")]);
    let zeros = vec![0; 4 * 1024 * 1024];
    // As a file that is longer than listed, as what follows the end, and as an entry that is only skipped over.
    refused(Hostile::new(&manifest).file("lib/echo", &zeros), &manifest, "expected 7 bytes");
    let mut end = Hostile::new(&manifest).file("lib/echo", b"content");
    end.tar.extend_from_slice(&zeros);
    refused(end, &manifest, "more comes out of it");
    let skipped = Hostile::new(&manifest).raw("lib/", EntryType::Directory, &zeros, zeros.len() as u64);
    refused(skipped, &manifest, "no folder of a listed file");
    let huge = Hostile::new(&manifest).raw("lib/echo", EntryType::Regular, b"content", u64::MAX >> 1);
    refused(huge, &manifest, "expected 7 bytes");
    // What a manifest may declare has bounds too.
    let mut large = manifest.clone();
    large.files[0].len = u64::MAX;
    refused(Hostile::new(&large), &large, "bytes in all");
    let mut many = manifest.clone();
    many.files =
        (0..20_000).map(|at| FileEntry { path: format!("f{at}").into(), ..many.files[0].clone() }).collect();
    refused(Hostile::new(&many), &many, "files and folders");
    let mut wrong = manifest.clone();
    wrong.files[0].sha256 = "xyz".into();
    refused(Hostile::new(&wrong), &wrong, "wrong hash");
}

#[test]
fn what_follows_the_end_is_refused() {
    let manifest = listing(&[("lib/echo", b"content")]);
    let mut archive = Hostile::new(&manifest).file("lib/echo", b"content");
    archive.tar.extend_from_slice(&[0; 1024]);
    archive.tar.extend_from_slice(b"#!/bin/sh");
    refused(archive, &manifest, "something after its end");
}

#[test]
fn what_is_no_archive_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.tar.zst");
    let manifest = listing(&[("lib/echo", b"content")]);
    for content in [&b""[..], b"hello", &zstd::encode_all(&b"not a tar"[..], 1).unwrap()] {
        fs::write(&path, content).unwrap();
        unpack_in(temp.path(), &manifest).unwrap_err();
        read_manifest(&path).unwrap_err();
    }
}

#[test]
fn an_archive_does_not_choose_how_much_memory_it_takes() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.tar.zst");
    let mut large = zstd::Encoder::new(Vec::new(), 1).unwrap();
    large.window_log(27).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(1 << 28), &mut large).unwrap();
    fs::write(&path, large.finish().unwrap()).unwrap();
    let error = chain(&read_manifest(&path).unwrap_err());
    assert!(error.contains("too much memory"), "{error}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
        let manifest = listing(&[("lib/echo", b"content")]);
        let archive = Hostile { tar: bytes };
        proptest::prop_assert!(archive.unpack(&manifest).is_err());
    }

    /// Changes bytes of a good package before and after compression.
    #[test]
    fn a_changed_package_writes_nothing_outside(changes in proptest::collection::vec((0..100_000_usize, 0..=255_u8), 1..4)) {
        let temp = tempfile::tempdir().unwrap();
        let dir = plugin(&temp.path().join("in"), "echo", "1.0.0");
        let archive = temp.path().join("a.tar.zst");
        let packed = pack(&dir, &archive).unwrap();
        fs::remove_dir_all(temp.path().join("in")).unwrap();
        let good = fs::read(&archive).unwrap();
        let mut tar = zstd::decode_all(good.as_slice()).unwrap();
        let mut compressed = good;
        for (at, byte) in changes {
            let (len, compressed_len) = (tar.len(), compressed.len());
            tar[at % len] = byte;
            compressed[at % compressed_len] = byte;
        }
        for content in [compressed, zstd::encode_all(tar.as_slice(), 1).unwrap()] {
            fs::File::create(&archive).unwrap().write_all(&content).unwrap();
            // Whether it is refused depends on the byte: an owner's name, say, is not looked at.
            let _ = unpack_in(temp.path(), &packed.manifest);
            let _ = read_manifest(&archive);
        }
    }
}
