//! `pajamas-host hooks` on the command line.

use serde_json::Value;

use super::{component, table};
use crate::harness::{Finished, Setup};

fn check(name: &str, args: &[&str]) -> Finished {
    let file = component(name);
    Setup::new().run(&[&["hooks", "check", file.to_str().expect("path")], args].concat())
}

#[test]
fn a_good_hook_is_described_and_tried() {
    for (name, config, parts) in [
        ("redact", "{}", ["redact 0.", "pajamas:hook/text@0.1.0", "[EMAIL]", "[PHONE]"].as_slice()),
        ("prompt-guard", "{}", &["prompt-guard", "passed"]),
        ("prompt-guard", r#"{"chars_max": 5}"#, &["rejected: "]),
        ("letterbox", "{}", &["images F32 [1, 3, 640, 640]"]),
        ("trim-silence", "{}", &["audio.input"]),
    ] {
        let finished = check(name, &["--config-json", config]);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        for part in parts {
            assert!(finished.stdout.contains(part), "{name}: \"{part}\" is not in {finished:?}");
        }
    }
    let finished = check("redact", &["--json"]);
    let report: Value = serde_json::from_str(&finished.stdout).expect("json");
    assert_eq!(report["describes_itself_as"], "redact", "{report}");
    assert_eq!(report["samples"].as_array().map(Vec::len), Some(2), "{report}");
    assert_eq!(report["samples"][0]["failed"], false, "{report}");
    assert!(report["load_ms"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn a_bad_hook_fails_the_check() {
    for (fault, part) in [("loop", "processor time"), ("trap", "trapped"), ("huge_output", "memory")] {
        let config = format!("{{\"fault\": \"{fault}\"}}");
        let finished = check("rogue", &["--config-json", &config]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stdout.contains("FAILED") && finished.stdout.contains(part), "{finished:?}");
    }
    let cases = [
        (r#"{"fault": "refuse"}"#, "refused by rogue"),
        (r#"{"fault": "trap_describe"}"#, "asked what it is"),
        ("[]", "expected a JSON object"),
    ];
    for (config, part) in cases {
        let finished = check("rogue", &["--config-json", config]);
        assert_eq!(finished.code, Some(64), "{config}: {finished:?}");
        assert!(finished.stderr.contains(part), "{config}: {finished:?}");
    }
    let finished = Setup::new().run(&["hooks", "check", "/nowhere/x.wasm"]);
    assert_eq!(finished.code, Some(66), "{finished:?}");
    assert!(finished.stderr.contains("/nowhere/x.wasm"), "{finished:?}");
}

#[test]
fn hooks_are_listed_as_a_table_and_as_json() {
    let setup = Setup::echo()
        .copy(&component("redact"), "plugins/hooks/redact/redact.wasm")
        .copy(&component("letterbox"), "plugins/hooks/letterbox/letterbox.wasm")
        .config("[[hooks]]\nname = \"mine\"\nhook = \"redact\"\n")
        .config(&table("guard", "prompt-guard", ""));
    let finished = setup.run(&["hooks", "list"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for part in ["NAME", "mine", "guard", "letterbox", "installed", "configured", "text", "tensor"] {
        assert!(finished.stdout.contains(part), "\"{part}\" is not in {finished:?}");
    }
    let rows: Value = serde_json::from_str(&setup.run(&["hooks", "list", "--json"]).stdout).expect("json");
    let rows = rows.as_array().expect("list");
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let seen: Vec<_> = rows.iter().map(|row| text(row, "name") + " " + &text(row, "state")).collect();
    assert_eq!(seen, ["mine configured", "guard configured", "letterbox installed"], "{rows:?}");
    let broken = setup.config("[[hooks]]\nname = \"broken\"\npath = \"pajamas.toml\"\n");
    let finished = broken.run(&["hooks", "list"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stdout.contains("unusable") && finished.stdout.contains("mine"), "{finished:?}");
}
