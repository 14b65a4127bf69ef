//! `completions`: a script that teaches a shell this command line.

use clap_complete::Shell;

use super::print::Printer;
use super::{Error, clap_command};

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Error> {
    // By way of a buffer, because the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut clap_command(), "pajamas-host", &mut script);
    Printer::stdout().bytes(&script)
}
