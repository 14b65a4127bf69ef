//! Arguments as users type them.

use std::collections::BTreeSet;

use super::*;
use crate::config::{FIELDS, Folders, load};

fn parse_line(line: &str) -> Result<Invocation, Error> {
    let words = std::iter::once("pajamas-host").chain(line.split_whitespace());
    parse(words.map(OsString::from))
}

/// The command and its configuration, where nothing but the arguments says anything.
fn configured(line: &str) -> (Box<Configured>, Config) {
    let Invocation::Configured(command) = parse_line(line).unwrap() else {
        panic!("{line} needs no configuration");
    };
    let folders = Folders { config: "/c".into(), data: "/d".into(), cache: "/k".into() };
    let surroundings =
        Surroundings { working_dir: "/w".into(), folders: Some(folders), ..Surroundings::default() };
    let config = load(command.sources(&surroundings)).unwrap().config;
    (command, config)
}

#[test]
fn the_command_line_is_consistent() {
    clap_command().debug_assert();
}

#[test]
fn without_a_command_it_serves() {
    for line in ["", "serve", "--plugins ./plugins", "serve --listen 127.0.0.1:0"] {
        let (command, config) = configured(line);
        assert!(matches!(command.command, ConfiguredCommand::Serve), "{line}");
        assert_eq!(config.log.filter.as_str(), "info");
    }
}

#[test]
fn flags_may_stand_before_and_after_the_command() {
    let flags = "--plugins p --models m --models /n --listen 127.0.0.1:1 --log-level debug --log-format json --in-process";
    for line in [format!("{flags} serve"), format!("serve {flags}")] {
        let (_, config) = configured(&line);
        assert_eq!(config.plugins_dir, PathBuf::from("/w/p"));
        assert_eq!(config.models_dirs, [PathBuf::from("/w/m"), PathBuf::from("/n")]);
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.log.filter.as_str(), "debug");
        assert_eq!(config.log.format, LogFormat::Json);
        assert!(config.in_process && !config.insecure);
    }
}

#[test]
fn commands_that_print_an_answer_log_warnings_only() {
    for line in ["models list", "plugins list --json", "run m hello", "models inspect m"] {
        assert_eq!(configured(line).1.log.filter, LogFilter::warnings(), "{line}");
    }
    assert_eq!(configured("--log-level info models list").1.log.filter.as_str(), "info");
}

#[test]
fn wrong_arguments_are_usage_errors_that_say_what_was_expected() {
    let cases = [
        ("--lisen 1", "unexpected argument '--lisen'"),
        ("frobnicate", "unrecognized subcommand 'frobnicate'"),
        ("--listen 8080", "expected an IP address and a port, such as 127.0.0.1:8080"),
        ("--log-level inof", "expected off, error, warn, info, debug or trace"),
        ("--log-format xml", "[possible values: human, json]"),
        ("run", "<MODEL>"),
        ("run m --temperature 3", "expected a number from 0 to 2"),
        ("run m --max-tokens 0", "0 is not in 1.."),
        ("completions tcsh", "[possible values: bash"),
    ];
    for (line, expected) in cases {
        let error = parse_line(line).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage, "{line}");
        assert!(error.to_string().contains(expected), "{line}: {error}");
    }
}

#[test]
fn help_and_version_are_no_errors_and_help_tells_the_exit_codes() {
    for line in ["--help", "-h", "--version", "run --help", "help"] {
        assert_eq!(parse_line(line).unwrap_err().exit(), Exit::Success, "{line}");
    }
    let help = parse_line("--help").unwrap_err().to_string();
    for exit in Exit::ALL {
        assert!(help.contains(&exit.code().to_string()), "{help}");
    }
    assert!(!help.contains("worker"), "{help}");
}

#[test]
fn every_flag_of_a_field_exists_and_every_global_flag_but_two_has_a_field() {
    let command = clap_command();
    let flags: BTreeSet<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let of_fields: BTreeSet<_> = FIELDS.iter().filter_map(|field| field.flag?.strip_prefix("--")).collect();
    let without_field: Vec<_> = flags.difference(&of_fields).copied().collect();
    assert_eq!(without_field, ["config", "json"]);
    assert!(of_fields.is_subset(&flags));
}

#[test]
fn completions_and_the_man_page_are_standalone() {
    for line in ["completions bash", "man", "worker"] {
        assert!(matches!(parse_line(line).unwrap(), Invocation::Standalone(_)), "{line}");
    }
}
