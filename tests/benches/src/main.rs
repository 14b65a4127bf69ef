//! Load over HTTP: the same client against the host and its rivals, in one run, results as Markdown tables.

mod client;
mod generate;
mod live;
mod roundtrip;

use clap::Parser;

#[derive(Parser)]
#[command(about = "measures servers that speak OpenAI's API, side by side")]
enum Args {
    /// Round trip of a chat completion through the echo plugin, against a bare axum handler with the same answer.
    Roundtrip(roundtrip::Args),
    /// Tokens per second and time to first token of several servers with the same model.
    Generate(generate::Args),
    /// Gaps between the tokens of running streams: steady, while a plugin is swapped, when its worker is killed.
    Live(live::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse() {
        Args::Roundtrip(args) => roundtrip::run(&args),
        Args::Generate(args) => generate::run(&args),
        Args::Live(args) => live::run(&args),
    }
}
