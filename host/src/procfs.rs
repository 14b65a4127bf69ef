//! Figures of Linux's `/proc`; `None` where there is no such file, field or process.

/// The bytes that a line such as `VmRSS:     1234 kB` of the file tells.
pub(crate) fn bytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
