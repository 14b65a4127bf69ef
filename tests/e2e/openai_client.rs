//! The official `openai` client for Python against the real host and a real model.

use std::process::Command;

use crate::harness::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_is_satisfied() {
    let Some(python) = std::env::var_os("PAJAMAS_TEST_PYTHON") else {
        eprintln!(
            "skipped: PAJAMAS_TEST_PYTHON names no Python with the openai package (cargo xtask test sets it)"
        );
        return;
    };
    let Some(setup) = Setup::real("smollm2") else { return };
    let host = setup.start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/openai_client.py");
    let output = Command::new(python).arg(script).arg(&host.url).output().expect("python runs");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(text.contains("all checks passed"), "{text}");
}
