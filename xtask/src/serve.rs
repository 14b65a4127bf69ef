//! `cargo xtask serve`: from nothing to a model's answer.

use std::io::{self, Write};
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::build;
use crate::chat_client;
use crate::host_process::HostProcess;
use crate::models;
use crate::setup::Tools;
use crate::workspace::Workspace;

const MODEL: &str = "smollm2";

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Stop the host after the first answer
    #[arg(long)]
    once: bool,
    /// The address to listen on [default: 127.0.0.1:8080; with --once a free port]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// What to ask the model
    #[arg(long, default_value = "Name the capital of France.")]
    question: String,
    /// More arguments for `pajamas-host serve`
    #[arg(last = true)]
    host_args: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &ServeArgs) -> Result<()> {
    let tools = Tools::ensure(workspace)?;
    let models = models::ensure_named(workspace, &tools, &[MODEL])?;
    let built = build::for_serving(workspace, &tools)?;

    let free_port = if args.once { "127.0.0.1:0" } else { "127.0.0.1:8080" };
    let mut command = Command::new(&built.host);
    command.arg("serve").arg("--plugins").arg(&built.plugins).arg("--models").arg(&models);
    command.arg("--listen").arg(args.listen.as_deref().unwrap_or(free_port)).args(&args.host_args);
    if args.once && args.host_args.is_empty() {
        // Nobody operates this one: the answer is what is to be seen.
        command.args(["--log-level", "warn"]);
    }
    let host = HostProcess::start(&mut command)?;

    ask(host.address(), &args.question)?;
    if args.once {
        return host.stop();
    }
    print_example(host.address());
    host.wait()
}

/// Asks the model and shows question and answer as a conversation.
fn ask(address: &str, question: &str) -> Result<()> {
    println!("\n> {question}");
    let timing = chat_client::ask(address, MODEL, question, |text| {
        print!("{text}");
        // A terminal that has gone away is no reason to stop serving.
        let _ = io::stdout().flush();
    })?;
    println!(
        "\n\n{} tokens, {:.1} tokens/s, first token after {} ms",
        timing.tokens,
        timing.tokens_per_second(),
        timing.first_token.as_millis()
    );
    Ok(())
}

fn print_example(address: &str) {
    println!(
        "\nThe host serves http://{address} until Ctrl-C. Ask it something yourself:\n\n  \
         curl http://{address}/v1/chat/completions -H 'Content-Type: application/json' \\\n    \
         -d '{{\"model\": \"{MODEL}\", \"stream\": true, \
         \"messages\": [{{\"role\": \"user\", \"content\": \"Tell me about llamas.\"}}]}}'\n"
    );
}
