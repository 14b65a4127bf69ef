//! Taking a package apart. Nothing of the archive is believed: what it may hold is known from a manifest that was verified
//! before, and the tar reader interprets no extensions, so that an entry's path is the one in its own header.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::{FileEntry, MANIFEST_BYTES_MAX, MANIFEST_FILE, ManifestError};
use tar::{Archive, EntryType};

use super::{BLOCK_BYTES, PADDING_BYTES_MAX, PackageError, PackageLimits, check_files, check_path};
use crate::files::{FileError, PIECE_BYTES, sync_folder};
use crate::hash::Hashing;

/// Most memory that decompression may ask for: 2^24 bytes, which is more than packing uses.
const WINDOW_LOG_MAX: u32 = 24;

/// Unpacks `archive` into `dest`, an empty folder that nobody else writes to. `manifest` says what must be in it: these
/// files with these hashes, and a `plugin.toml` that says the same. When this returns all is on the disk.
/// `unpacked` is told after each file.
///
/// # Errors
/// Anything else is in it or something is missing; `dest` then holds a part of it, for the caller to remove.
pub fn unpack(
    archive: &Path,
    dest: &Path,
    manifest: &Manifest,
    limits: &PackageLimits,
    unpacked: &mut dyn FnMut(),
) -> Result<(), PackageError> {
    check_files(manifest, limits).map_err(|problem| PackageError::Files { problem })?;
    let mut target = Target::new(dest, manifest);
    let mut archive = open(archive, target.bytes_max())?;
    let damaged = archive.damaged();
    for entry in archive.tar.entries().map_err(&damaged)?.raw(true) {
        let mut entry = entry.map_err(&damaged)?;
        if target.add(&mut entry, &damaged)? {
            unpacked();
        }
    }
    check_end(&mut archive.tar.into_inner()).map_err(damaged)?;
    target.finish()
}

/// The manifest in an archive: its first entry. Nothing else of it is read.
///
/// # Errors
/// The file is no package.
pub fn read_manifest(archive: &Path) -> Result<Manifest, PackageError> {
    let mut archive = open(archive, MANIFEST_BYTES_MAX + BLOCK_BYTES)?;
    let damaged = archive.damaged();
    let entry = archive.tar.entries().map_err(&damaged)?.raw(true).next();
    let mut entry = entry.transpose().map_err(&damaged)?.ok_or_else(|| lacks(MANIFEST_FILE))?;
    if check_entry(&entry)? != (EntryType::Regular, MANIFEST_FILE.to_owned()) {
        return Err(lacks(MANIFEST_FILE));
    }
    Ok(Manifest::parse(&read_text(&mut entry, &damaged)?, Path::new(MANIFEST_FILE))?)
}

/// Checks that the unpacked plugin in `dir` is what `manifest` lists. Files beyond that are not looked for.
///
/// # Errors
/// A file is missing, cannot be read or is another one.
pub fn verify_folder(dir: &Path, manifest: &Manifest) -> Result<(), PackageError> {
    if !is_same(&Manifest::read(dir)?, manifest) {
        return Err(PackageError::OtherManifest);
    }
    for file in &manifest.files {
        let path = dir.join(&file.path);
        let mut reader = File::open(&path).map_err(FileError::on("read", &path))?.take(file.len + 1);
        copy(&mut reader, &mut io::sink(), file).map_err(|error| match error {
            CopyError::Read(error) | CopyError::Write(error) => FileError::on("read", &path)(error).into(),
            CopyError::Content => content(file),
        })?;
    }
    Ok(())
}

/// Why a file could not be copied.
enum CopyError {
    Read(io::Error),
    Write(io::Error),
    Content,
}

/// Copies a file's content and checks that it is the one that is listed.
fn copy(reader: &mut impl Read, writer: &mut impl Write, file: &FileEntry) -> Result<(), CopyError> {
    let mut writer = Hashing::new(writer);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => writer.write_all(&piece[..count]).map_err(CopyError::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
    let (_, sha256, len) = writer.finish();
    if len == file.len && sha256.to_string() == file.sha256 { Ok(()) } else { Err(CopyError::Content) }
}

fn content(file: &FileEntry) -> PackageError {
    let path = file.path.display().to_string();
    PackageError::Content { path, len: file.len, sha256: file.sha256.clone() }
}

fn create(path: &Path, mode: u32) -> Result<File, FileError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.map_err(FileError::on("create", path))
}

/// The text of an archive's `plugin.toml`.
fn read_text(
    reader: &mut impl Read,
    damaged: &dyn Fn(io::Error) -> PackageError,
) -> Result<String, PackageError> {
    let mut text = String::new();
    let len = reader.take(MANIFEST_BYTES_MAX + 1).read_to_string(&mut text).map_err(damaged)? as u64;
    if len > MANIFEST_BYTES_MAX {
        let path = Path::new(MANIFEST_FILE).to_owned();
        return Err(ManifestError::TooLarge { path, len }.into());
    }
    Ok(text)
}

/// Whether two manifests say the same, of which one may have come as JSON: that can write a number differently.
fn is_same(one: &Manifest, other: &Manifest) -> bool {
    let plain = |manifest: &Manifest| -> Option<Manifest> {
        serde_json::from_slice(&serde_json::to_vec(manifest).ok()?).ok()
    };
    one == other || plain(one).is_some_and(|one| plain(other) == Some(one))
}

fn lacks(path: &str) -> PackageError {
    PackageError::Missing { path: path.to_owned() }
}

struct Opened<'a> {
    path: &'a Path,
    tar: Archive<Bounded<zstd::Decoder<'static, BufReader<File>>>>,
}

impl<'a> Opened<'a> {
    fn damaged(&self) -> impl Fn(io::Error) -> PackageError + Copy + 'a {
        let path = self.path;
        move |source| PackageError::Archive { archive: path.to_owned(), source }
    }
}

fn open(path: &Path, bytes_max: u64) -> Result<Opened<'_>, PackageError> {
    let file = File::open(path).map_err(FileError::on("open", path))?;
    let mut decoder = zstd::Decoder::new(file).map_err(FileError::on("read", path))?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(FileError::on("read", path))?;
    Ok(Opened { path, tar: Archive::new(Bounded { inner: decoder, left: bytes_max }) })
}

/// A reader that fails when more comes than was declared: an archive of a few bytes can hold terabytes of zeros.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("more comes out of it than its manifest lists"))?;
        Ok(count)
    }
}

/// Whether only zeros follow the last entry.
fn check_end(reader: &mut impl Read) -> io::Result<()> {
    let mut piece = [0; BLOCK_BYTES as usize];
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(()),
            count if piece[..count].iter().all(|byte| *byte == 0) => {}
            _ => return Err(io::Error::other("there is something after its end")),
        }
    }
}

/// The kind and path of an entry that may be in a package.
fn check_entry<R: Read>(entry: &tar::Entry<'_, R>) -> Result<(EntryType, String), PackageError> {
    let header = entry.header();
    let bytes = header.path_bytes();
    let lossy = String::from_utf8_lossy(&bytes);
    let kind = header.entry_type();
    if !matches!(kind, EntryType::Regular | EntryType::Directory) {
        let kind = match kind {
            EntryType::Symlink => "a symbolic link",
            EntryType::Link => "a hard link",
            EntryType::Char | EntryType::Block => "a device",
            EntryType::Fifo => "a pipe",
            EntryType::XHeader | EntryType::XGlobalHeader => "a PAX extension",
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::GNUSparse => "a GNU extension",
            _ => "of a kind that is not known",
        };
        return Err(PackageError::entry(&lossy, format!("is {kind}: only files and folders are allowed")));
    }
    if header.as_ustar().is_none() {
        return Err(PackageError::entry(&lossy, "has a header of another format than ustar"));
    }
    let path = if kind == EntryType::Directory { lossy.trim_end_matches('/') } else { &lossy };
    check_path(path).map_err(|problem| PackageError::entry(&lossy, problem))?;
    Ok((kind, path.to_owned()))
}

/// The folder that a package is unpacked into, and what is still to come.
struct Target<'a> {
    dest: &'a Path,
    manifest: &'a Manifest,
    missing: BTreeMap<&'a str, &'a FileEntry>,
    /// Folders that the files are in, and whether each one has been made.
    folders: BTreeMap<String, bool>,
    /// Entries for folders, which may come once each.
    folder_entries: BTreeSet<String>,
    has_manifest: bool,
}

impl<'a> Target<'a> {
    fn new(dest: &'a Path, manifest: &'a Manifest) -> Self {
        let missing: BTreeMap<_, _> =
            manifest.files.iter().map(|file| (file.path.to_str().unwrap_or_default(), file)).collect();
        let parents =
            missing.keys().flat_map(|path| path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
        let folders = parents.map(|folder| (folder, false)).collect();
        Self { dest, manifest, missing, folders, folder_entries: BTreeSet::new(), has_manifest: false }
    }

    /// Most bytes that a proper archive has.
    fn bytes_max(&self) -> u64 {
        let files: u64 = self.missing.values().map(|file| file.len.saturating_add(2 * BLOCK_BYTES)).sum();
        let folders = self.folders.len() as u64 * BLOCK_BYTES;
        files + folders + MANIFEST_BYTES_MAX + 2 * BLOCK_BYTES + PADDING_BYTES_MAX
    }

    /// Unpacks an entry; whether it was a file.
    fn add<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        damaged: &dyn Fn(io::Error) -> PackageError,
    ) -> Result<bool, PackageError> {
        let (kind, path) = check_entry(entry)?;
        if kind == EntryType::Directory {
            if !self.folders.contains_key(&path)
                || !self.folder_entries.insert(path.clone())
                || entry.size() > 0
            {
                return Err(PackageError::entry(&path, "is no folder of a listed file, or is there twice"));
            }
            return Ok(false);
        }
        let full = self.dest.join(&path);
        if path == MANIFEST_FILE {
            if self.has_manifest {
                return Err(PackageError::entry(&path, "is there twice"));
            }
            self.has_manifest = true;
            return self.add_manifest(entry, &full, damaged).map(|()| true);
        }
        let file = self
            .missing
            .remove(path.as_str())
            .ok_or_else(|| PackageError::entry(&path, "is not listed in the manifest, or is there twice"))?;
        if entry.size() != file.len {
            return Err(content(file));
        }
        self.make_folders(&path)?;
        let mode = if entry.header().mode().map_err(damaged)? & 0o100 == 0 { 0o644 } else { 0o755 };
        let mut writer = create(&full, mode)?;
        copy(entry, &mut writer, file).map_err(|error| match error {
            CopyError::Read(error) => damaged(error),
            CopyError::Write(error) => FileError::on("write", &full)(error).into(),
            CopyError::Content => content(file),
        })?;
        writer.sync_all().map_err(FileError::on("write", &full))?;
        Ok(true)
    }

    fn add_manifest<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        full: &Path,
        damaged: &dyn Fn(io::Error) -> PackageError,
    ) -> Result<(), PackageError> {
        let text = read_text(entry, damaged)?;
        if !is_same(&Manifest::parse(&text, Path::new(MANIFEST_FILE))?, self.manifest) {
            return Err(PackageError::OtherManifest);
        }
        let mut writer = create(full, 0o644)?;
        writer
            .write_all(text.as_bytes())
            .and_then(|()| writer.sync_all())
            .map_err(|error| FileError::on("write", full)(error).into())
    }

    fn make_folders(&mut self, path: &str) -> Result<(), FileError> {
        for (at, _) in path.match_indices('/') {
            if let Some(made) = self.folders.get_mut(&path[..at]).filter(|made| !**made) {
                let folder = self.dest.join(&path[..at]);
                fs::create_dir(&folder).map_err(FileError::on("create", &folder))?;
                *made = true;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), PackageError> {
        if !self.has_manifest {
            return Err(lacks(MANIFEST_FILE));
        }
        if let Some(path) = self.missing.keys().next() {
            return Err(lacks(path));
        }
        // A folder comes before those in it.
        for folder in self.folders.keys().rev() {
            sync_folder(&self.dest.join(folder))?;
        }
        Ok(sync_folder(self.dest)?)
    }
}
