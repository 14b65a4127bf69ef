//! `registry`: publishing plugins. What these commands make is a folder of static files, for any web server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use pajamas_registry::{Hash, PublicKey, Repository, SecretKey, Signer, System};
use tower_http::services::ServeDir;

use super::print::Printer;
use super::serve::listen;
use super::{Error, block_on};
use crate::shutdown::Shutdown;

/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

#[derive(Debug, clap::Subcommand)]
pub(super) enum RegistryCommand {
    /// Make a key pair: FILE, which is secret, and FILE.pub
    Keygen {
        /// The secret key's file, which must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make an empty registry
    Init {
        #[command(flatten)]
        registry: RegistryArgs,
    },
    /// Let a publisher publish, with this key
    Publisher {
        #[command(flatten)]
        registry: RegistryArgs,
        /// The publisher, as `publisher` in its plugins' manifests has it
        #[arg(value_name = "NAME")]
        name: String,
        /// The publisher's public key
        #[arg(value_name = "FILE.pub")]
        public_key: PathBuf,
    },
    /// Add packages, signed with their publisher's secret key; clients see them after `sign`
    Add {
        /// The registry's folder
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// What `plugins pack` has made
        #[arg(value_name = "PACKAGE", required = true)]
        packages: Vec<PathBuf>,
        /// The publisher's secret key
        #[arg(long, value_name = "FILE")]
        publisher_key: PathBuf,
    },
    /// Sign the registry as it is now, after changes and before the last signature expires
    Sign {
        #[command(flatten)]
        registry: RegistryArgs,
    },
    /// Withdraw a package for good: clients do not install it any more
    Revoke {
        #[command(flatten)]
        registry: RegistryArgs,
        /// The package's SHA-256, as `plugins pack` and `plugins install --dry-run --json` show it
        #[arg(value_name = "SHA256")]
        sha256: Hash,
    },
    /// Change the registry's own key; clients that know the old one follow
    Rotate {
        #[command(flatten)]
        registry: RegistryArgs,
        /// The new secret key
        #[arg(long, value_name = "FILE")]
        new_key: PathBuf,
    },
    /// Serve a registry's folder over HTTP
    Serve {
        /// The registry's folder
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Address to serve at
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8090")]
        at: SocketAddr,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct RegistryArgs {
    /// The registry's folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The registry's secret key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// For how many days what is signed holds
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    valid_days: u64,
}

pub(super) fn run(command: &RegistryCommand) -> Result<(), Error> {
    let mut printer = Printer::stdout();
    match command {
        RegistryCommand::Keygen { file } => {
            let key = SecretKey::generate(file)?;
            printer.line(format_args!("secret key: {}", file.display()))?;
            printer.line(format_args!("public key: {}", key.public()))
        }
        RegistryCommand::Init { registry } => {
            let key = registry.key()?;
            Repository::init(&registry.dir, &registry.signer(&key), System::default())?;
            printer.line("clients find it with this in their pajamas.toml:")?;
            let location = std::path::absolute(&registry.dir).unwrap_or_else(|_| registry.dir.clone());
            printer.line(format_args!(
                "\n[registries.NAME]\nlocation = {:?}  # or the URL under which it is served\nkey = \"{}\"",
                location.display().to_string(),
                key.public()
            ))
        }
        RegistryCommand::Publisher { registry, name, public_key } => {
            let (key, public) = (registry.key()?, PublicKey::read(public_key)?);
            registry.open()?.add_publisher(name, &public, &registry.signer(&key))?;
            printer.line(format_args!("{name} may publish with the key {public}"))
        }
        RegistryCommand::Add { dir, packages, publisher_key } => {
            let (repository, key) = (open(dir)?, SecretKey::read(publisher_key)?);
            for package in packages {
                repository.add(package, &key)?;
                printer.line(format_args!("added {}", package.display()))?;
            }
            printer.line("clients see it after: pajamas-host registry sign")
        }
        RegistryCommand::Sign { registry } => {
            let key = registry.key()?;
            let repository = registry.open()?;
            repository.renew_keys(&registry.signer(&key))?;
            repository.sign(&registry.signer(&key))?;
            printer.line(format_args!("signed, for {} days", registry.valid_days))
        }
        RegistryCommand::Revoke { registry, sha256 } => {
            let key = registry.key()?;
            registry.open()?.revoke(*sha256, &registry.signer(&key))?;
            printer.line(format_args!("revoked {sha256}"))
        }
        RegistryCommand::Rotate { registry, new_key } => {
            let (old, new) = (registry.key()?, SecretKey::read(new_key)?);
            registry.open()?.rotate(&old, &registry.signer(&new))?;
            printer.line(format_args!("the registry's key is {} now", new.public()))
        }
        RegistryCommand::Serve { dir, at } => serve(&mut printer, dir, *at),
    }
}

impl RegistryArgs {
    fn key(&self) -> Result<SecretKey, Error> {
        Ok(SecretKey::read(&self.key)?)
    }

    fn open(&self) -> Result<Repository, Error> {
        open(&self.dir)
    }

    fn signer<'a>(&self, key: &'a SecretKey) -> Signer<'a> {
        Signer { key, valid: Duration::from_secs(self.valid_days * DAY_S) }
    }
}

fn open(dir: &Path) -> Result<Repository, Error> {
    Ok(Repository::open(dir, System::default())?)
}

/// Serves the folder until it is told to stop. Everything in a registry is public, and signed.
fn serve(printer: &mut Printer<std::io::Stdout>, dir: &Path, at: SocketAddr) -> Result<(), Error> {
    open(dir)?;
    let files = Router::new().fallback_service(ServeDir::new(dir));
    block_on(async {
        let shutdown = Shutdown::on_signal()
            .map_err(|source| Error::System { attempted: "install signal handlers", source })?;
        let listener = listen(at).await?;
        let bound = listener.local_addr().unwrap_or(at);
        printer.line(format_args!("serving the registry at http://{bound}"))?;
        let served = axum::serve(listener, files).with_graceful_shutdown(shutdown);
        served.await.map_err(|source| Error::System { attempted: "serve the registry", source })
    })
}
