//! Platforms without CoreML: nothing can be loaded there, and everything says why.

use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Error, ErrorKind, ProbeReport};

use crate::options::Options;
use crate::rows::Given;
use crate::signature::Port;
use crate::tensor::HostTensor;

fn reason() -> String {
    format!("CoreML exists on macOS 13 and newer only, and this machine runs {}", std::env::consts::OS)
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, reason())
}

/// No device, and why.
pub(crate) fn probe() -> ProbeReport {
    ProbeReport { reason: Some(reason()), ..ProbeReport::default() }
}

/// The version of a system that has no CoreML.
pub(crate) fn system_version() -> String {
    std::env::consts::OS.to_owned()
}

/// Compiles nothing.
pub(crate) fn compile(_package: &Path) -> Result<PathBuf, Error> {
    Err(unsupported())
}

/// A network that cannot be there.
#[derive(Debug)]
pub(crate) enum Network {}

impl Network {
    pub(crate) fn open(_compiled: &Path, _options: &Options, _has_states: bool) -> Result<Self, Error> {
        Err(unsupported())
    }

    pub(crate) fn labels(&self) -> Vec<String> {
        match *self {}
    }

    pub(crate) fn predict(
        &self,
        _rows: &[Vec<Given<'_>>],
        _outputs: &[&Port],
    ) -> Result<Vec<Vec<HostTensor>>, Error> {
        match *self {}
    }
}
