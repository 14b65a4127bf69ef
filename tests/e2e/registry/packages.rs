//! What users get (`cargo xtask dist`), unpacked in an empty folder, installs itself and answers.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Setup, real_model};
use crate::registry::publisher::run;

fn packages() -> Option<PathBuf> {
    let packages = std::env::var_os("PAJAMAS_TEST_PACKAGES").map(PathBuf::from);
    if packages.is_none() {
        eprintln!("skipped: PAJAMAS_TEST_PACKAGES names no packages (cargo xtask test makes them)");
    }
    packages
}

fn only(folder: &Path, ending: &str) -> PathBuf {
    let files = std::fs::read_dir(folder).expect("folder").filter_map(Result::ok).map(|entry| entry.path());
    let mut found = files.filter(|path| path.to_string_lossy().ends_with(ending));
    found.next().unwrap_or_else(|| panic!("{} has no {ending}", folder.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_and_a_registry_are_all_that_a_machine_needs() {
    let (Some(packages), Some((_, model))) = (packages(), real_model("smollm2")) else { return };
    let setup = Setup::new();
    run(Command::new("tar").arg("-xzf").arg(only(&packages, ".tar.gz")).arg("-C").arg(setup.path("")));
    let folder = only(&setup.path(""), "-linux");
    let key = std::fs::read_to_string(packages.join("throw-away-keys/root.key.pub")).expect("key");
    let key = key.lines().nth(1).expect("two lines").to_owned();
    let setup = setup
        .program(&folder.join("pajamas-host"))
        .config(&format!("[registries.main]\nlocation = {:?}\nkey = \"{key}\"", packages.join("registry")))
        .model_dir(&model);
    let installed = setup.run(&["plugins", "install", "--recommended"]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    for plugin in ["gguf", "onnx", "system-tts"] {
        assert!(installed.stdout.contains(&format!("{plugin} 0.1.0")), "{installed:?}");
    }
    assert!(!installed.stdout.contains("FAILED"), "{installed:?}");
    // The model that is there is what the plugin was tried with.
    assert!(installed.stdout.contains("self_test    passed"), "{installed:?}");
    let host = setup.start();
    let question = json!({
        "model": "smollm2", "temperature": 0, "max_tokens": 16,
        "messages": [{"role": "user", "content": "Name the capital of France."}],
    });
    let answer = host.post("/v1/chat/completions", &question).await;
    assert!(answer.text().contains("Paris"), "{answer:?}");
}
