//! What this process holds in memory, for plugins whose engine does not say what a model takes.

/// Resident memory of this process in bytes; `None` where the system does not tell it cheaply.
#[cfg(target_os = "linux")]
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Resident memory of this process in bytes; `None` where the system does not tell it cheaply.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    None
}
