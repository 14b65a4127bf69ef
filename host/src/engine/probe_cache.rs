//! What probes have shown before, kept in the cache folder, so that a start need not run every plugin.
//!
//! A probe is remembered for one library (by place, size and time of change: reading gigabytes to hash them would take longer
//! than the probe), one set of drivers and one version of the host. Only success is remembered: what failed may have been
//! mended, and is tried again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use pajamas_plugin_api::ProbeReport;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hardware::Hardware;

/// Largest entry that is read, in bytes; a larger one is as good as none.
const ENTRY_BYTES_MAX: u64 = 1024 * 1024;

/// Where the probe of one library on this machine is kept.
#[derive(Debug)]
pub(super) struct Entry {
    file: PathBuf,
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Content {
    key: String,
    report: ProbeReport,
}

impl Entry {
    /// The entry for a plugin's library; `None` when the library cannot be looked at.
    pub(super) fn new(cache_dir: &Path, plugin: &str, library: &Path, hardware: &Hardware) -> Option<Self> {
        let metadata = fs::metadata(library).ok()?;
        let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        add(env!("CARGO_PKG_VERSION"));
        add(&library.to_string_lossy());
        add(&format!("{} {}", metadata.len(), changed.as_nanos()));
        add(&format!("{:?} {:?}", hardware.cpu, hardware.glibc));
        for gpu in &hardware.gpus {
            add(&format!("{} {} {:?} {:?} {:?}", gpu.id, gpu.name, gpu.driver, gpu.cuda_driver, gpu.mig));
        }
        let key = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { file: cache_dir.join("probes").join(format!("{plugin}.json")), key })
    }

    /// What the probe has shown, if it is known.
    pub(super) fn read(&self) -> Option<ProbeReport> {
        if fs::metadata(&self.file).ok()?.len() > ENTRY_BYTES_MAX {
            return None;
        }
        let content: Content = serde_json::from_slice(&fs::read(&self.file).ok()?).ok()?;
        (content.key == self.key).then_some(content.report)
    }

    /// Remembers what the probe has shown. A cache that cannot be written costs time, nothing else.
    pub(super) fn write(&self, report: &ProbeReport) {
        let write = || -> io::Result<()> {
            let folder = self.file.parent().ok_or(io::ErrorKind::NotFound)?;
            fs::create_dir_all(folder)?;
            let content = Content { key: self.key.clone(), report: report.clone() };
            // Two hosts may write at the same time: each writes a file of its own, and the last one stays.
            let temporary = folder.join(format!(".{}", uuid::Uuid::new_v4()));
            fs::write(&temporary, serde_json::to_vec(&content)?)?;
            fs::rename(&temporary, &self.file)
        };
        if let Err(error) = write() {
            tracing::debug!(file = %self.file.display(), "cannot remember a probe: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_remembered_until_the_library_or_a_driver_changes() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        fs::write(&library, "one").unwrap();
        let machine = Hardware::default();
        let entry = |hardware: &Hardware| Entry::new(folder.path(), "p", &library, hardware).unwrap();
        let report = ProbeReport { engine: Some("x 1".into()), ..ProbeReport::default() };
        assert_eq!(entry(&machine).read(), None);
        entry(&machine).write(&report);
        assert_eq!(entry(&machine).read().as_ref(), Some(&report));
        let updated = Hardware { glibc: Some("2.40".into()), ..Hardware::default() };
        assert_eq!(entry(&updated).read(), None);
        fs::write(&library, "other").unwrap();
        assert_eq!(entry(&machine).read(), None);
        fs::write(folder.path().join("probes/p.json"), "nonsense").unwrap();
        assert_eq!(entry(&machine).read(), None);
        assert!(Entry::new(folder.path(), "p", &folder.path().join("missing"), &machine).is_none());
    }
}
