//! The command line: arguments as typed, then one file per command.
//!
//! Parsing does no input or output. [`Standalone`] commands need nothing but their arguments; [`Configured`] ones are
//! given a valid [`Config`] and a running log.

mod check_case;
mod completions;
mod error;
mod exit;
mod hooks;
mod keys;
mod man;
mod models_change;
mod models_inspect;
mod models_list;
mod plugins_check;
mod plugins_install;
mod plugins_list;
mod plugins_new;
mod plugins_pack;
mod print;
mod probe;
mod registry;
mod remote;
mod resolve;
mod run;
mod serve;
mod why;

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use error::Error;
pub use exit::Exit;

use crate::config::{Config, Listen, LogFilter, LogFormat, RawConfig, RawLog, Sources, Surroundings};
use crate::plugins::worker;

/// Serves every inference runtime this machine can use through one OpenAI-compatible API.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "pajamas-host", version)]
pub struct Args {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags of all commands. Those that have a field in the configuration win over every other layer.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct GlobalArgs {
    /// Folder of the plugins, each in a folder of its own
    #[arg(long, global = true, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Folder of models, or one model's file; may be given several times
    #[arg(long, global = true, value_name = "PATH")]
    models: Vec<PathBuf>,
    /// Configuration file [default: pajamas.toml here, or in the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "IP:PORT")]
    listen: Option<Listen>,
    /// Allow an address that other machines can reach, although no key is asked for
    #[arg(long, global = true)]
    insecure: bool,
    /// Swap plugins and models whose files change
    #[arg(long, global = true)]
    watch: bool,
    /// What to log: off, error, warn, info, debug, trace, or directives [default: info when serving, else warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<LogFilter>,
    /// How to log
    #[arg(long, global = true, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Run plugins inside this process, for debuggers: a plugin's crash is then the host's
    #[arg(long, global = true)]
    in_process: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Configured(ConfiguredCommand),
    #[command(flatten)]
    Standalone(StandaloneCommand),
}

#[derive(Debug, Subcommand)]
enum ConfiguredCommand {
    /// Serve the models over HTTP; the default command
    Serve,
    /// Talk to a model in this terminal
    Run(run::RunArgs),
    /// See which plugins are there, or check one
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// See which models are there
    #[command(subcommand)]
    Models(ModelsCommand),
    /// See which hooks are there, or try one
    #[command(subcommand)]
    Hooks(hooks::HooksCommand),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// See what a running host has loaded, and what it does
    Ps(remote::HostArgs),
    /// See what this machine is, and what each plugin finds in it
    Probe,
    /// See which plugin serves a model, and why not another one
    Why(why::WhyArgs),
}

#[derive(Debug, Subcommand)]
enum PluginsCommand {
    /// List the installed plugins, and whether they work on this machine
    List,
    /// Check that a plugin keeps the rules of the plugin API, each case in a process of its own
    Check(plugins_check::CheckArgs),
    /// Install plugins from a registry, verified and tried out
    Install(plugins_install::InstallArgs),
    /// Install newer versions of what a registry installed
    Update(plugins_install::UpdateArgs),
    /// Go back to the version of a plugin that was active before
    Rollback(plugins_install::NameArgs),
    /// Remove a plugin that a registry installed, with all of its versions
    Remove(plugins_install::NameArgs),
    /// Make a package of a plugin's folder, for a registry
    Pack(plugins_pack::PackArgs),
    /// Begin a plugin of one's own
    New(plugins_new::NewArgs),
    /// Replace the version of a plugin in a running host, without dropping a stream
    Swap(remote::SwapArgs),
    /// Lift the quarantine of a plugin in a running host
    Reset(remote::ResetArgs),
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// List the models in the models folders
    List,
    /// Show what a plugin reads in a model's file, without loading it
    Inspect(models_inspect::InspectArgs),
    /// Fetch a model from a hub
    Pull(models_change::PullArgs),
    /// Remove the files of a model
    Rm(models_change::RemoveArgs),
}

#[derive(Debug, Subcommand)]
enum StandaloneCommand {
    /// Publish plugins
    #[command(subcommand)]
    Registry(registry::RegistryCommand),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Print the man page
    Man,
    /// Run one plugin for the host that started this process
    #[command(hide = true)]
    Worker,
    /// Run one case of `plugins check`
    #[command(hide = true)]
    CheckCase(check_case::CheckCaseArgs),
}

/// What to do, and what it needs.
#[derive(Debug)]
pub enum Invocation {
    /// A command that needs nothing but its arguments.
    Standalone(Standalone),
    /// A command that needs a configuration and a log.
    Configured(Box<Configured>),
}

/// A command that needs nothing but its arguments.
#[derive(Debug)]
pub struct Standalone(StandaloneCommand);

/// A command that needs a configuration and a log.
#[derive(Debug)]
pub struct Configured {
    global: GlobalArgs,
    command: ConfiguredCommand,
}

/// Reads the arguments, of which the first is the program's name.
///
/// # Errors
/// [`Error::Arguments`], also when help or the version is asked for.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Error> {
    let matches = clap_command().try_get_matches_from(arguments)?;
    let Args { global, command } = Args::from_arg_matches(&matches)?;
    Ok(match command.unwrap_or(Command::Configured(ConfiguredCommand::Serve)) {
        Command::Standalone(command) => Invocation::Standalone(Standalone(command)),
        Command::Configured(command) => Invocation::Configured(Box::new(Configured { global, command })),
    })
}

/// The whole command line, for help, the man page and completions.
fn clap_command() -> clap::Command {
    Args::command().after_help(exit::help())
}

impl Standalone {
    /// Runs the command.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(self) -> Result<ExitCode, Error> {
        match self.0 {
            StandaloneCommand::Completions(args) => completions::run(&args)?,
            StandaloneCommand::Man => man::run()?,
            StandaloneCommand::Registry(command) => registry::run(&command)?,
            StandaloneCommand::Worker => return Ok(worker::main()),
            StandaloneCommand::CheckCase(args) => return Ok(check_case::run(&args)),
        }
        Ok(Exit::Success.into())
    }
}

impl Configured {
    /// Where this command's configuration comes from.
    #[must_use]
    pub fn sources<'a>(&'a self, surroundings: &'a Surroundings) -> Sources<'a> {
        let mut fallback = RawConfig::default();
        if !matches!(self.command, ConfiguredCommand::Serve) {
            fallback.log.level = Some(LogFilter::warnings());
        }
        Sources { fallback, file: self.global.config.as_deref(), flags: self.global.layer(), surroundings }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(self, config: Config) -> Result<ExitCode, Error> {
        let json = self.global.json;
        match self.command {
            ConfiguredCommand::Serve => serve::run(config)?,
            ConfiguredCommand::Run(args) => run::run(config, args, json)?,
            ConfiguredCommand::Plugins(command) => {
                return plugins(config, command, json).map(ExitCode::from);
            }
            ConfiguredCommand::Hooks(command) => {
                return hooks::run(&config, &command, json).map(ExitCode::from);
            }
            ConfiguredCommand::Keys(command) => keys::run(&config, &command, json)?,
            ConfiguredCommand::Ps(args) => remote::ps(&config, &args, json)?,
            ConfiguredCommand::Probe => probe::run(config, json)?,
            ConfiguredCommand::Why(args) => why::run(config, &args, json)?,
            ConfiguredCommand::Models(ModelsCommand::List) => models_list::run(&config, json)?,
            ConfiguredCommand::Models(ModelsCommand::Inspect(args)) => {
                models_inspect::run(config, &args, json)?
            }
            ConfiguredCommand::Models(ModelsCommand::Pull(args)) => {
                models_change::pull(&config, &args, json)?
            }
            ConfiguredCommand::Models(ModelsCommand::Rm(args)) => {
                models_change::remove(&config, &args, json)?
            }
        }
        Ok(Exit::Success.into())
    }
}

/// The commands about plugins.
fn plugins(config: Config, command: PluginsCommand, json: bool) -> Result<Exit, Error> {
    match command {
        PluginsCommand::List => plugins_list::run(config, json)?,
        PluginsCommand::Check(args) => return plugins_check::run(&config, &args, json),
        PluginsCommand::Install(args) => plugins_install::install(&config, &args, json)?,
        PluginsCommand::Update(args) => plugins_install::update(&config, &args, json)?,
        PluginsCommand::Rollback(args) => plugins_install::rollback(&config, &args, json)?,
        PluginsCommand::Remove(args) => plugins_install::remove(&config, &args, json)?,
        PluginsCommand::Pack(args) => plugins_pack::run(&args, json)?,
        PluginsCommand::New(args) => plugins_new::run(&args)?,
        PluginsCommand::Swap(args) => remote::swap(&config, &args, json)?,
        PluginsCommand::Reset(args) => remote::reset(&config, &args, json)?,
    }
    Ok(Exit::Success)
}

impl GlobalArgs {
    /// The layer of the configuration that the flags are.
    fn layer(&self) -> RawConfig {
        RawConfig {
            listen: self.listen,
            insecure: self.insecure.then_some(true),
            plugins_dir: self.plugins.clone(),
            models_dirs: (!self.models.is_empty()).then(|| self.models.clone()),
            in_process: self.in_process.then_some(true),
            watch: self.watch.then_some(true),
            log: RawLog { level: self.log_level.clone(), format: self.log_format },
            ..RawConfig::default()
        }
    }
}

/// Runs a command's future to its end. What it left running, such as a read from a terminal, is not waited for.
fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    // Half of the cores: the engines need the others, and the fewer threads a request moves between, the sooner it is
    // done (echo on 2 cores: 109 µs more than a bare handler instead of 118, and a quarter less CPU time).
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.div_ceil(2))
        .enable_all()
        .build()
        .map_err(|source| Error::System { attempted: "start the threads that do the work", source })?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

#[cfg(test)]
mod tests;
