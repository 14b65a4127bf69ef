//! The program: arguments, configuration, log, command. What goes wrong is printed here, once.

use std::env;
use std::process::ExitCode;

use pajamas_host::cli::{self, Error, Invocation};
use pajamas_host::config::{self, Surroundings};
use pajamas_host::telemetry;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| error.report().into())
}

fn run() -> Result<ExitCode, Error> {
    let command = match cli::parse(env::args_os())? {
        Invocation::Standalone(command) => return command.run(),
        Invocation::Configured(command) => command,
    };
    let surroundings = Surroundings::of_this_process()
        .map_err(|source| Error::System { attempted: "tell the working folder", source })?;
    let loaded = config::load(command.sources(&surroundings))?;
    telemetry::init(&loaded.config.log)?;
    loaded.log();
    command.run(loaded.config)
}
