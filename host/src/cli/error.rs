//! What can go wrong on the command line, and which exit code says so.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use pajamas_plugin_api::ErrorKind;
use pajamas_plugin_api::manifest::ManifestError;
use pajamas_registry::package::PackageError;
use pajamas_registry::source::SourceError;
use pajamas_registry::{PublishError, RegistryError, StoreError};

use super::exit::Exit;
use super::print::printable;
use crate::chat::TemplateError;
use crate::config::ConfigError;
use crate::engine::{EngineError, StartError};
use crate::hooks::{HooksError, LoadError};
use crate::install::InstallError;
use crate::keys::KeyError;
use crate::media::MediaError;
use crate::models::pull::PullError;
use crate::telemetry::TelemetryError;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments are wrong, or ask for help; clap has the text.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no log.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The engine did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The API keys cannot be read or changed.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A hook cannot be used.
    #[error(transparent)]
    Hooks(#[from] HooksError),
    /// A plugin was not installed, updated, rolled back or removed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// A package could not be made.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A registry could not be changed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A key that signs could not be made or read.
    #[error(transparent)]
    SigningKey(#[from] pajamas_registry::KeyError),
    /// A model was not fetched.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// No registry has installed the plugin.
    #[error(
        "no registry of the configuration has installed {name}: `pajamas-host plugins list` shows what is there, and from where"
    )]
    NotInstalled {
        /// The plugin.
        name: String,
    },
    /// A version that cannot be read.
    #[error("\"{text}\" does not say which versions: expected something such as 0.2, =0.2.1 or >=0.2, <0.4")]
    Version {
        /// What was typed.
        text: String,
        /// Why.
        source: semver::Error,
    },
    /// A model could not do its work.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The conversation does not fit the model's chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Another program listens there.
    #[error("{listen} is in use by another program: stop it, or choose another port with --listen")]
    PortInUse {
        /// The address.
        listen: SocketAddr,
    },
    /// The system does not let this program listen there.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Neither a name of the catalog nor a path.
    #[error("there is no model called \"{name}\"{}", instead(.known))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// Names that exist.
        known: Vec<String>,
    },
    /// A path that exists, but is not one model.
    #[error("not a model: {problem}")]
    NotAModel {
        /// The path, and why not.
        problem: String,
    },
    /// The folder holds no usable plugin.
    #[error("there is no plugin to check")]
    Manifest(#[from] ManifestError),
    /// Arguments that are right one by one, but not together.
    #[error("{0}")]
    Usage(&'static str),
    /// Reading the prompt failed.
    #[error("cannot read the prompt from standard input")]
    Input(#[source] io::Error),
    /// Reading a picture or sound failed.
    #[error("cannot read {}", .path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Writing a picture or sound failed.
    #[error("cannot write {}", .path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is no picture or sound that can be used.
    #[error("cannot use {}", .path.display())]
    Media {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MediaError,
    },
    /// Writing the answer failed.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The system refused something else.
    #[error("cannot {attempted}")]
    System {
        /// What was attempted.
        attempted: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// No host answers there.
    #[error("no host answers at {url}: start one, or name its address with --url")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The host said no.
    #[error("{message}")]
    Host {
        /// Its reason.
        message: String,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The code to end with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Arguments(error) if !error.use_stderr() => Exit::Success,
            // Whoever reads the output has seen enough: `pajamas-host models list | head -1` is no failure.
            Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Arguments(_)
            | Self::Config(_)
            | Self::Telemetry(_)
            | Self::Template(_)
            | Self::Usage(_) => Exit::Usage,
            Self::Start(error) => start_exit(error),
            Self::Engine(error) => engine_exit(error),
            Self::UnknownModel { .. } | Self::Manifest(ManifestError::Read { .. }) => Exit::NoInput,
            Self::ReadFile { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NoInput,
            Self::ReadFile { .. } | Self::WriteFile { .. } => Exit::Io,
            Self::NotAModel { .. } | Self::Manifest(_) | Self::Media { .. } => Exit::BadData,
            Self::PortInUse { .. } | Self::Listen { .. } | Self::Unreachable { .. } => Exit::Unavailable,
            Self::Keys(KeyError::Unknown { .. }) => Exit::NoInput,
            Self::Keys(KeyError::Name) => Exit::Usage,
            Self::Keys(KeyError::Parse { .. } | KeyError::TooLarge { .. }) => Exit::BadData,
            Self::Keys(_) => Exit::Io,
            Self::Hooks(error) => hooks_exit(error),
            Self::Install(error) => install_exit(error),
            Self::Package(_) => Exit::BadData,
            Self::Publish(_) | Self::SigningKey(_) => Exit::Failure,
            Self::NotInstalled { .. } => Exit::NoInput,
            Self::Pull(error) => pull_exit(error),
            Self::Version { .. } => Exit::Usage,
            Self::Host { .. } => Exit::Failure,
            Self::Input(_) | Self::Output(_) | Self::System { .. } => Exit::Io,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// Tells the user, on standard error, with all causes; help goes to standard output. Returns the code to end with.
    #[must_use]
    pub fn report(&self) -> Exit {
        let exit = self.exit();
        // There is nobody left to tell when this fails.
        let _ = match self {
            Self::Arguments(error) => error.print(),
            _ if exit == Exit::Success => Ok(()),
            _ => self.print(),
        };
        exit
    }

    fn print(&self) -> io::Result<()> {
        let mut stderr = io::stderr().lock();
        writeln!(stderr, "error: {}", printable(&self.to_string()))?;
        let mut cause = self.source();
        while let Some(error) = cause {
            // Errors of TOML show the lines around them.
            let indented = printable(error.to_string().trim_end()).replace('\n', "\n    ");
            writeln!(stderr, "  caused by: {indented}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn start_exit(error: &StartError) -> Exit {
    match error {
        StartError::Plugins(_) | StartError::NoPlugins { .. } => Exit::NoInput,
        StartError::Executable(_) => Exit::Io,
    }
}

fn hooks_exit(error: &HooksError) -> Exit {
    match error {
        HooksError::Load { source, .. } => match source {
            LoadError::NotInstalled { .. } => Exit::NoInput,
            LoadError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NoInput,
            LoadError::Read { .. } => Exit::Io,
            LoadError::Broken { .. } | LoadError::WrongWorld { .. } | LoadError::TooLarge { .. } => {
                Exit::BadData
            }
            LoadError::Config(_) | LoadError::Describe(_) => Exit::Usage,
            LoadError::Engine(_) | LoadError::Thread(_) | LoadError::Lost => Exit::Internal,
        },
        HooksError::Unknown(_) | HooksError::TooMany | HooksError::Twice(_) => Exit::Usage,
    }
}

fn install_exit(error: &InstallError) -> Exit {
    match error {
        InstallError::NoRegistry
        | InstallError::UnknownRegistry { .. }
        | InstallError::NoState
        | InstallError::NotGranted { .. }
        | InstallError::UnknownVariant { .. } => Exit::Usage,
        InstallError::Registry(RegistryError::NoPlugin { .. } | RegistryError::NoVersion { .. })
        | InstallError::Store(StoreError::NotInstalled { .. } | StoreError::NoPrevious { .. }) => {
            Exit::NoInput
        }
        InstallError::Registry(RegistryError::Source(_))
        | InstallError::Unfit { .. }
        | InstallError::NoDevice(_) => Exit::Unavailable,
        InstallError::Registry(_) => Exit::BadData,
        InstallError::Store(_) | InstallError::Pointer(_) | InstallError::Executable(_) => Exit::Io,
        InstallError::Gate(_) => Exit::Failure,
    }
}

fn pull_exit(error: &PullError) -> Exit {
    match error {
        PullError::Reference { .. } => Exit::Usage,
        PullError::Choose { .. } | PullError::Source(SourceError::Missing { .. }) => Exit::NoInput,
        PullError::Source(_) | PullError::Private { .. } | PullError::Busy { .. } => Exit::Unavailable,
        PullError::Answer { .. } | PullError::Outside { .. } | PullError::Content { .. } => Exit::BadData,
        PullError::Full { .. } | PullError::Occupied { .. } | PullError::File { .. } => Exit::Io,
    }
}

fn engine_exit(error: &EngineError) -> Exit {
    match error {
        EngineError::UnknownModel { .. } => Exit::NoInput,
        EngineError::UnsupportedTask { .. } => Exit::Usage,
        EngineError::NoPlugin { .. }
        | EngineError::Quarantined { .. }
        | EngineError::QueueFull { .. }
        | EngineError::CoolingDown { .. }
        | EngineError::OutOfMemory { .. } => Exit::Unavailable,
        EngineError::Load { error, .. } | EngineError::Plugin(error) => plugin_exit(error.kind()),
        EngineError::Worker(_) | EngineError::Poison(_) => Exit::Internal,
        EngineError::ShuttingDown => Exit::Interrupted,
    }
}

fn plugin_exit(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Invalid | ErrorKind::Unsupported => Exit::Usage,
        ErrorKind::BadModel => Exit::BadData,
        ErrorKind::NotFound => Exit::NoInput,
        ErrorKind::OutOfMemory | ErrorKind::Overloaded | ErrorKind::Deadline | ErrorKind::Device => {
            Exit::Unavailable
        }
        ErrorKind::Cancelled => Exit::Interrupted,
        ErrorKind::Internal | ErrorKind::Panic => Exit::Internal,
    }
}

/// The end of the sentence that names what is there instead.
fn instead(names: &[String]) -> String {
    const SHOWN_MAX: usize = 10;
    if names.is_empty() {
        return ", and no model at all: put one into the models folder, or name another folder with --models"
            .to_owned();
    }
    let shown = names.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > SHOWN_MAX { " and others" } else { "" };
    format!(" and no such file; there are: {shown}{more}")
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::Error as PluginError;

    use super::*;

    fn load_error(kind: ErrorKind) -> Error {
        let error = PluginError::new(kind, "m");
        Error::Engine(EngineError::Load { model: "m".into(), plugin: "p".into(), error })
    }

    #[test]
    fn each_kind_of_failure_has_its_code() {
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let listen = "127.0.0.1:1".parse().unwrap();
        let cases = [
            (Error::Usage("x"), 64),
            (Error::Config(ConfigError::Exposed { listen }), 64),
            (load_error(ErrorKind::BadModel), 65),
            (load_error(ErrorKind::OutOfMemory), 69),
            (load_error(ErrorKind::Invalid), 64),
            (load_error(ErrorKind::Panic), 70),
            (Error::Engine(EngineError::UnknownModel { name: "m".into() }), 66),
            (Error::Start(StartError::NoPlugins { dir: "/p".into() }), 66),
            (Error::UnknownModel { name: "m".into(), known: vec![] }, 66),
            (Error::PortInUse { listen }, 69),
            (Error::Output(io(io::ErrorKind::StorageFull)), 74),
            (Error::Output(io(io::ErrorKind::BrokenPipe)), 0),
            (Error::ReadFile { path: "x".into(), source: io(io::ErrorKind::NotFound) }, 66),
            (Error::ReadFile { path: "x".into(), source: io(io::ErrorKind::PermissionDenied) }, 74),
            (Error::WriteFile { path: "x".into(), source: io(io::ErrorKind::NotFound) }, 74),
            (Error::Media { path: "x".into(), source: MediaError::Empty }, 65),
            (Error::Interrupted, 130),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit().code(), code, "{error}");
        }
    }

    #[test]
    fn an_unknown_model_is_answered_with_those_that_exist() {
        let message = |known: &[&str]| {
            let known = known.iter().map(|name| (*name).to_owned()).collect();
            Error::UnknownModel { name: "x".into(), known }.to_string()
        };
        assert_eq!(message(&["a", "b"]), "there is no model called \"x\" and no such file; there are: a, b");
        assert!(message(&["a"; 11]).ends_with("a and others"));
        assert!(message(&[]).contains("no model at all"));
    }
}
