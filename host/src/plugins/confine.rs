//! Confinement of a worker on Linux: Landlock rules that allow reading the plugin, the models and the system's
//! libraries, and writing one cache folder; no TCP unless the plugin asked and the operator granted it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a worker may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Readable paths: the plugin's folder, the models, what the operator granted.
    pub read: Vec<PathBuf>,
    /// Writable paths: the plugin's cache folder, what the operator granted.
    pub write: Vec<PathBuf>,
    /// Whether TCP is allowed.
    pub network: bool,
}

/// Whether the kernel can confine a worker; where it does not say, it is taken to.
#[cfg(target_os = "linux")]
pub(crate) fn is_available() -> bool {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm");
    modules.map_or(true, |modules| modules.split(',').any(|module| module.trim() == "landlock"))
}

/// Confinement is not implemented for this operating system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_available() -> bool {
    false
}

/// System paths that every runtime needs: libraries, fonts and data (`/usr`, `/lib…`, `/etc`, `/opt`), information
/// about devices (`/proc`, `/sys`).
#[cfg(target_os = "linux")]
const SYSTEM_READ: [&str; 8] = ["/usr", "/lib", "/lib64", "/etc", "/opt", "/proc", "/sys", "/run"];
/// Device files: opened for writing by GPU drivers; access to each is still up to its permissions. And the worker's own
/// threads, to which CUDA gives names there: where it cannot, it finds no GPU.
#[cfg(target_os = "linux")]
const SYSTEM_WRITE: [&str; 3] = ["/dev", "/dev/shm", "/proc/self/task"];

/// Confines the calling thread and all threads that it starts later. Returns what was enforced, for the log.
#[cfg(target_os = "linux")]
pub(crate) fn apply(rules: &Confinement) -> String {
    match restrict(rules) {
        Ok(status) => status,
        Err(error) => format!("not confined: {error}"),
    }
}

/// Confinement is not implemented for this operating system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn apply(_rules: &Confinement) -> String {
    "not confined: this operating system has no Landlock".to_owned()
}

#[cfg(target_os = "linux")]
fn restrict(rules: &Confinement) -> Result<String, landlock::RulesetError> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
        path_beneath_rules,
    };
    let abi = ABI::V6;
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi))?;
    if !rules.network {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
    }
    let read = rules.read.iter().cloned().chain(SYSTEM_READ.iter().map(PathBuf::from));
    let write = rules.write.iter().cloned().chain(SYSTEM_WRITE.iter().map(PathBuf::from));
    let status = ruleset
        .create()?
        .add_rules(path_beneath_rules(read, AccessFs::from_read(abi)))?
        .add_rules(path_beneath_rules(write, AccessFs::from_all(abi)))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "confined by Landlock".to_owned(),
        RulesetStatus::PartiallyEnforced => {
            "confined by Landlock in part: the kernel does not know all of the rules".to_owned()
        }
        RulesetStatus::NotEnforced => "not confined: the kernel lacks Landlock".to_owned(),
    })
}
