//! What is being done, for whoever watches.

/// A step between finding a release and using it, in the order in which they come. Each one is told when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of the archive have arrived; told for every piece.
    Received {
        /// Bytes that are there.
        bytes: u64,
        /// Bytes of the whole archive.
        bytes_total: u64,
    },
    /// The archive is complete and is the one that was signed.
    Fetched,
    /// One of its files has been unpacked and verified; told for each.
    Unpacked,
    /// Its files are on the disk.
    Synced,
    /// They are in the version's folder, which is not active yet.
    Staged,
    /// The version's record says which one it takes the place of.
    Recorded,
    /// The version is the active one.
    Activated,
}

/// Told each step when it is done. It runs within the work: what it takes, the work takes longer.
pub type Progress<'a> = &'a mut dyn FnMut(Step);
