//! Making a package of a folder.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::{FileEntry, MANIFEST_FILE};

use super::{PackageError, PackageLimits, RECORD_FILE, check_files};
use crate::files::{DRAFT_PREFIX, FileError, sync_folder};
use crate::hash::{Hash, Hashing};

/// Strength of the compression. The strongest levels take minutes for a library of CUDA's size.
const LEVEL: i32 = 12;
/// Mode of files in an archive, and of those that may be run.
const MODES: (u32, u32) = (0o644, 0o755);

/// A package that was made.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The archive.
    pub archive: PathBuf,
    /// Its hash.
    pub sha256: Hash,
    /// Its length in bytes.
    pub len: u64,
    /// Its manifest, with all files listed.
    pub manifest: Manifest,
}

/// Packs all that is in `dir` into the archive `out`, replacing a file that is there. `plugin.toml` is written anew, with
/// `[[files]]` filled in.
///
/// # Errors
/// The folder holds something other than files and folders, a path that not every system takes, more than
/// [`PackageLimits::default`] allows, or no usable manifest; or a file cannot be read or written, or changes meanwhile.
pub fn pack(dir: &Path, out: &Path) -> Result<Packed, PackageError> {
    let mut manifest = Manifest::read(dir)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let inside = |path: &Path| path.canonicalize().map_err(FileError::on("read", path));
    if inside(folder)?.starts_with(inside(dir)?) {
        let problem = "is where the package is to be written: choose a place outside of the plugin's folder";
        return Err(PackageError::entry(&out.display().to_string(), problem));
    }
    let limits = PackageLimits::default();
    let mut found = Vec::new();
    collect(dir, "", &limits, &mut found)?;
    found.sort();
    manifest.files = found.iter().map(|path| entry(dir, path)).collect::<Result<_, _>>()?;
    check_files(&manifest, &limits).map_err(|problem| PackageError::Files { problem })?;
    let create = || FileError::on("write", out);
    let draft = tempfile::Builder::new().prefix(DRAFT_PREFIX).tempfile_in(folder).map_err(create())?;
    let writer = Hashing::new(BufWriter::new(draft));
    let (writer, sha256, len) = write(dir, &manifest, writer, out)?.finish();
    let draft = writer.into_inner().map_err(|error| create()(error.into_error()))?;
    let mode = fs::Permissions::from_mode(MODES.0);
    draft.as_file().set_permissions(mode).and_then(|()| draft.as_file().sync_all()).map_err(create())?;
    draft.persist(out).map_err(|error| create()(error.error))?;
    sync_folder(folder)?;
    Ok(Packed { archive: out.to_owned(), sha256, len, manifest })
}

/// Lists the files below `dir`, relative to the plugin's folder.
fn collect(
    dir: &Path,
    prefix: &str,
    limits: &PackageLimits,
    found: &mut Vec<String>,
) -> Result<(), PackageError> {
    for entry in fs::read_dir(dir).map_err(FileError::on("read", dir))? {
        let entry = entry.map_err(FileError::on("read", dir))?;
        let name = entry.file_name();
        let path = format!("{prefix}{}", name.to_string_lossy());
        super::check_path(&path).map_err(|problem| PackageError::entry(&path, problem))?;
        let kind = entry.file_type().map_err(FileError::on("read", &entry.path()))?;
        if kind.is_dir() {
            collect(&entry.path(), &format!("{path}/"), limits, found)?;
        } else if !kind.is_file() {
            return Err(PackageError::entry(
                &path,
                "is neither a file nor a folder: put a copy in its place",
            ));
        } else if path != MANIFEST_FILE && path != RECORD_FILE {
            found.push(path);
        }
        if found.len() > limits.entries_max {
            let problem = format!("is one of more than {} files", limits.entries_max);
            return Err(PackageError::entry(&found[limits.entries_max], problem));
        }
    }
    Ok(())
}

fn entry(dir: &Path, path: &str) -> Result<FileEntry, PackageError> {
    let full = dir.join(path);
    let file = File::open(&full).map_err(FileError::on("read", &full))?;
    let mut reader = Hashing::new(file);
    io::copy(&mut reader, &mut io::sink()).map_err(FileError::on("read", &full))?;
    let (_, sha256, len) = reader.finish();
    Ok(FileEntry { path: path.into(), sha256: sha256.to_string(), len })
}

/// Writes the archive of `manifest`'s files.
fn write<W: Write>(dir: &Path, manifest: &Manifest, writer: W, out: &Path) -> Result<W, PackageError> {
    let write = || FileError::on("write", out);
    let encoder = zstd::Encoder::new(writer, LEVEL).map_err(write())?;
    let mut archive = tar::Builder::new(encoder);
    let text = toml::to_string(manifest)?;
    let head = header(MANIFEST_FILE, text.len() as u64, MODES.0)?;
    archive.append(&head, text.as_bytes()).map_err(write())?;
    for entry in &manifest.files {
        let (path, full) = (entry.path.to_string_lossy(), dir.join(&entry.path));
        let file = File::open(&full).map_err(FileError::on("read", &full))?;
        let mode = file.metadata().map_err(FileError::on("read", &full))?.permissions().mode();
        let mode = if mode & 0o100 == 0 { MODES.0 } else { MODES.1 };
        let mut reader = Hashing::new(BufReader::new(file).take(entry.len));
        archive.append(&header(&path, entry.len, mode)?, &mut reader).map_err(write())?;
        let (_, sha256, len) = reader.finish();
        if len != entry.len || sha256.to_string() != entry.sha256 {
            return Err(PackageError::entry(&path, "has changed while it was packed: pack it again"));
        }
    }
    archive.into_inner().and_then(zstd::Encoder::finish).map_err(|error| write()(error).into())
}

/// The header of a file, with nothing in it that depends on where and when the package is made.
fn header(path: &str, len: u64, mode: u32) -> Result<tar::Header, PackageError> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).map_err(|error| PackageError::entry(path, format!("tar cannot name: {error}")))?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(len);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}
