//! What can go wrong with hooks.

use std::path::PathBuf;

/// Why a hook cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The engine does not start.
    #[error("cannot start the engine for hooks: {0:#}")]
    Engine(wasmtime::Error),
    /// A thread does not start.
    #[error("cannot start a thread for hooks")]
    Thread(#[source] std::io::Error),
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is too large.
    #[error("{path} has {len} bytes, a hook may have at most {max}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// A name that belongs to no installed hook.
    #[error("there is no hook \"{name}\": expected it at {path}")]
    NotInstalled {
        /// The name.
        name: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// The file is no WebAssembly, or broken.
    #[error("{path} is not a WebAssembly component, nor a module that can be made one: {reason}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is a component, but not a hook that this host can run.
    #[error("{path} is not a hook for this host: {reason}")]
    WrongWorld {
        /// The file.
        path: PathBuf,
        /// What is missing or unknown.
        reason: String,
    },
    /// The hook does not like its configuration.
    #[error("the hook refuses its configuration: {0}")]
    Config(String),
    /// The hook failed when it was asked what it is.
    #[error("the hook failed when it was asked what it is: {0}")]
    Describe(Fault),
    /// The task that loads it was lost.
    #[error("loading the hook failed: this is a bug")]
    Lost,
}

/// How a call of a hook failed. The instance is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It ran too long.
    #[error("it used more than {0} ms of processor time")]
    Time(u64),
    /// It waited too long, for a clock or for input that never comes.
    #[error("it did not return within {0} ms")]
    Wait(u64),
    /// It trapped.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It wanted more memory than it may have, and gave up.
    #[error("it needs more than {limit_bytes} bytes of memory: {trap}")]
    Memory {
        /// The limit.
        limit_bytes: usize,
        /// How it gave up.
        trap: String,
    },
    /// It returned too much.
    #[error("it returned more than {0} bytes")]
    Output(usize),
    /// What it returned makes no sense.
    #[error("its result is malformed: {0}")]
    Malformed(String),
    /// It panicked in the host, or its thread was lost: a defect of the host.
    #[error("the host failed to run it: this is a bug")]
    Lost,
}

/// Why a request does not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// The hook rejects it.
    #[error("{message}")]
    Rejected {
        /// The hook.
        hook: String,
        /// What it says.
        message: String,
    },
    /// The hook failed, and the operator wants no answer without it.
    #[error("the hook {hook} failed: {fault}")]
    Failed {
        /// The hook.
        hook: String,
        /// How.
        fault: Fault,
    },
    /// All instances are in use.
    #[error("too many requests use hooks at the moment")]
    Busy,
}
