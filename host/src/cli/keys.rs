//! `keys create|list|revoke`.

use std::io::Write;

use serde_json::json;

use super::Error;
use super::print::{Printer, list};
use crate::config::Config;
use crate::engine::{CALLER_WEIGHT_MAX, Priority};
use crate::keys::{Key, KeyFile, KeyLimits, Scope};

#[derive(Debug, clap::Subcommand)]
pub(super) enum KeysCommand {
    /// Make a key and show it, this once
    Create(CreateArgs),
    /// List the keys, without their secrets
    List,
    /// Revoke a key; a running host notices within a second
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Whose key it is
    #[arg(value_name = "NAME")]
    name: String,
    /// What it may be used for
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [ScopeArg::Infer])]
    scope: Vec<ScopeArg>,
    /// The highest priority that its requests may have, and the one that they have by default
    #[arg(long, value_enum, default_value_t)]
    priority: Priority,
    /// Its share of a model's tokens where requests wait, in relation to other keys' [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CALLER_WEIGHT_MAX)))]
    weight: Option<u32>,
    /// Requests that it may make within a minute [default: any number]
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers that it may use within a minute [default: any number]
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u32>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ScopeArg {
    /// Models
    Infer,
    /// Operation
    Admin,
}

#[derive(Debug, clap::Args)]
pub(super) struct RevokeArgs {
    /// The key's id, as `keys list` shows it
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) fn run(config: &Config, command: &KeysCommand, json: bool) -> Result<(), Error> {
    let path = config.keys_file.as_ref().ok_or(Error::Usage(
        "this user has no home folder that the keys could be in: set keys_file (see docs/configuration.md)",
    ))?;
    let mut file = KeyFile::read(path)?;
    let mut printer = Printer::stdout();
    match command {
        KeysCommand::Create(args) => {
            let scopes: Vec<Scope> = args.scope.iter().map(|scope| (*scope).into()).collect();
            let limits = KeyLimits {
                priority: args.priority,
                weight: args.weight,
                requests_per_minute: args.requests_per_minute,
                tokens_per_minute: args.tokens_per_minute,
            };
            let (secret, key) = file.create(&args.name, &scopes, limits)?;
            let document = json!({"id": key.id, "name": key.name, "key": secret});
            file.write(path)?;
            if json {
                return printer.json(&document);
            }
            printer.line(&secret)
        }
        KeysCommand::List => print_list(&mut printer, &file.keys, json),
        KeysCommand::Revoke(args) => {
            let key = file.revoke(&args.id)?;
            file.write(path)?;
            if json {
                return printer.json(&json!({"id": key.id, "name": key.name, "revoked": true}));
            }
            printer.line(format_args!("revoked the key of {}", key.name))
        }
    }
}

fn print_list<W: Write>(printer: &mut Printer<W>, keys: &[Key], json: bool) -> Result<(), Error> {
    if json {
        let document = |key: &Key| {
            json!({
                "id": key.id, "name": key.name, "scopes": key.scopes, "priority": key.priority, "weight": key.weight,
                "created_unix_s": key.created_unix_s,
                "requests_per_minute": key.requests_per_minute, "tokens_per_minute": key.tokens_per_minute,
            })
        };
        return printer.json(&json!({"keys": keys.iter().map(document).collect::<Vec<_>>()}));
    }
    let limit = |limit: Option<u32>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    let row = |key: &Key| {
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.name()).collect();
        [
            key.id.clone(),
            key.name.clone(),
            list(&scopes),
            limit(key.requests_per_minute),
            limit(key.tokens_per_minute),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    printer.table(["ID", "NAME", "SCOPES", "REQUESTS/MIN", "TOKENS/MIN"], &rows)
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Infer => Self::Infer,
            ScopeArg::Admin => Self::Admin,
        }
    }
}
