//! Plugins from registries: published by one, installed by another, tried out before they are used.

mod guide;
mod packages;
mod publisher;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Setup, eventually};
use crate::stream::kill;
use publisher::Publisher;

/// A change of a manifest.
type Edit = fn(String) -> String;

/// A machine that knows the publisher's registry.
fn client(publisher: &Publisher) -> Setup {
    Setup::new().config(&publisher.client_config()).model("polly.parrot", "")
}

fn json_of(setup: &Setup, command: &[&str]) -> Value {
    let finished = setup.run(&[command, &["--json"]].concat());
    assert_eq!(finished.code, Some(0), "{command:?}: {finished:?}");
    serde_json::from_str(&finished.stdout).expect("json")
}

/// The active version and the one before, as `plugins list` shows them.
fn versions(setup: &Setup) -> (Value, Value) {
    let listed = json_of(setup, &["plugins", "list"]);
    (listed[0]["version"].clone(), listed[0]["installation"]["previous"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_installed_updated_under_traffic_and_rolled_back() {
    let publisher = Publisher::new();
    publisher.publish("parrot", "0.1.0", |manifest| manifest);
    let client = client(&publisher);
    let installed = client.run(&["plugins", "install", "parrot"]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    for gate in
        ["signature", "constraints", "unpack", "handshake", "probe", "conformance", "self_test", "activate"]
    {
        assert!(installed.stdout.contains(&format!("  {gate}")), "{gate}: {installed:?}");
    }
    let listed = json_of(&client, &["plugins", "list"]);
    assert_eq!(listed[0]["installation"]["origin"]["signed"]["registry"], "birds", "{listed}");
    assert_eq!(listed[0]["state"], "ready", "{listed}");

    let host = client.start();
    assert_eq!(host.chat("polly", "who is there").await.text(), "who is there");
    publisher.publish("parrot", "0.2.0", |manifest| manifest);
    let updated = host.run(&["plugins", "update"]);
    assert_eq!(updated.code, Some(0), "{updated:?}");
    let report = host.post("/admin/plugins/parrot/swap", &json!({})).await;
    assert_eq!((report.status, &report.body["to"]), (200, &json!("0.2.0")), "{report:?}");
    assert_eq!(host.chat("polly", "and now").await.text(), "and now");

    let back = host.run(&["plugins", "rollback", "parrot"]);
    assert_eq!(back.code, Some(0), "{back:?}");
    let report = host.post("/admin/plugins/parrot/swap", &json!({})).await;
    assert_eq!((report.status, &report.body["to"]), (200, &json!("0.1.0")), "{report:?}");
    assert_eq!(host.chat("polly", "still here").await.text(), "still here");
    eventually("one worker is left", || host.workers().len() == 1).await;
    let again = host.run(&["plugins", "update", "--dry-run"]);
    assert!(again.stdout.starts_with("parrot 0.2.0 from registry birds"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_serves_outlives_two_updates() {
    let publisher = Publisher::new();
    publisher.publish("parrot", "0.1.0", |manifest| manifest);
    let client = client(&publisher);
    assert_eq!(client.run(&["plugins", "install", "parrot"]).code, Some(0));
    let host = client.start();
    assert_eq!(host.chat("polly", "one").await.text(), "one");
    for version in ["0.2.0", "0.3.0"] {
        publisher.publish("parrot", version, |manifest| manifest);
        let updated = host.run(&["plugins", "update"]);
        assert_eq!(updated.code, Some(0), "{updated:?}");
    }
    // The next worker is started from the folder of the version that serves.
    host.workers().into_iter().for_each(|pid| kill(pid, Signal::KILL));
    assert_eq!(host.chat("polly", "two").await.text(), "two");
    let installed = || {
        let entries = std::fs::read_dir(host.path("plugins/parrot")).expect("plugin");
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir())).count()
    };
    assert_eq!(installed(), 3);
    let report = host.post("/admin/plugins/parrot/swap", &json!({})).await;
    assert_eq!((report.status, &report.body["to"]), (200, &json!("0.3.0")), "{report:?}");
}

#[test]
fn a_bad_version_does_not_become_active() {
    let publisher = Publisher::new();
    publisher.publish("parrot", "0.1.0", |manifest| manifest);
    let client = client(&publisher);
    assert_eq!(client.run(&["plugins", "install", "parrot"]).code, Some(0));
    // What is wrong, the gate that finds it, and a word of the reason.
    let table: [(&str, Edit, &str, &str); 4] = [
        ("0.2.0", |manifest| manifest.replace("abi = \">=1.0, <2\"", "abi = \">=7\""), "constraints", "ABI"),
        ("0.3.0", |manifest| manifest + "\n[accel]\napi = \"cuda\"\n", "constraints", "an NVIDIA GPU"),
        (
            "0.4.0",
            |manifest| manifest.replace("contains = \"hello", "contains = \"goodbye"),
            "self_test",
            "goodbye",
        ),
        ("0.5.0", |manifest| manifest.replace("lib/parrot", "plugin.toml"), "handshake", "plugin.toml"),
    ];
    for (version, edit, gate, word) in table {
        publisher.publish("parrot", version, edit);
        let refused = client.run(&["plugins", "install", &format!("parrot@={version}")]);
        let text = format!("{}{}", refused.stdout, refused.stderr);
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert!(text.contains(word), "{version}: {text}");
        if gate != "constraints" {
            assert!(text.contains(&format!("its gate \"{gate}\" failed")), "{version}: {text}");
        }
        assert_eq!(versions(&client), (json!("0.1.0"), Value::Null), "{version}");
    }
    // Of the versions that this machine can use, the newest is taken.
    let planned = json_of(&client, &["plugins", "install", "parrot", "--dry-run"]);
    assert_eq!(planned["planned"][0]["version"], "0.5.0", "{planned}");
}

#[test]
fn what_a_plugin_asks_for_is_shown_and_has_to_be_granted() {
    let publisher = Publisher::new();
    publisher.publish("parrot", "0.1.0", |manifest| {
        manifest + "\n[permissions]\nnetwork = true\nread = [\"/srv\"]\n"
    });
    let client = client(&publisher);
    let refused = client.run(&["plugins", "install", "parrot"]);
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(
        refused.stderr.contains("connect to other machines, read /srv: install it with --grant"),
        "{refused:?}"
    );
    assert_eq!(client.run(&["plugins", "install", "parrot", "--grant"]).code, Some(0));
    let granted = json_of(&client, &["plugins", "list"]);
    let granted = &granted[0]["installation"]["granted"];
    assert_eq!(*granted, json!({"network": true, "read": ["/srv"], "write": []}));
}

#[test]
fn a_plugin_can_do_what_was_granted_and_no_more() {
    let publisher = Publisher::new();
    let secret = publisher.path("secret");
    std::fs::write(&secret, "for few eyes").expect("secret");
    // Its probe tells whether it can read the file.
    let curious = |source: String| {
        let (open, shut) = (r#"\"engine\":\"open\""#, r#"\"engine\":\"shut\""#);
        let answer = r#"return echo_result(sink, "{\"devices\":[{\"id\":\"cpu\",\"accel\":\"cpu\",\"name\":\"CPU\"}],\"engine\":\"parrot\"}");"#;
        let changed = source.replacen("#include <pthread.h>", "#include <pthread.h>\n#include <stdio.h>", 1);
        let new = [open, shut].map(|word| answer.replace(r#"\"engine\":\"parrot\""#, word));
        let new = format!("if (fopen(\"{}\", \"r\") != NULL) {{ {} }} {}", secret.display(), new[0], new[1]);
        assert!(changed.contains(answer), "{changed}");
        changed.replace(answer, &new)
    };
    publisher.publish_with("parrot", "0.1.0", &curious, |manifest| manifest);
    let client = client(&publisher);
    assert_eq!(client.run(&["plugins", "install", "parrot"]).code, Some(0));
    if client.run(&["plugins", "list"]).stderr.contains("lacks Landlock") {
        eprintln!("skipped: the kernel lacks Landlock, so nothing confines a plugin");
        return;
    }
    assert_eq!(json_of(&client, &["plugins", "list"])[0]["engine"], "shut");
    let asks = format!("\n[permissions]\nread = [{secret:?}]\n");
    publisher.publish_with("parrot", "0.2.0", &curious, |manifest| manifest + &asks);
    assert_eq!(client.run(&["plugins", "update"]).code, Some(64));
    assert_eq!(client.run(&["plugins", "update", "--grant"]).code, Some(0));
    assert_eq!(json_of(&client, &["plugins", "list"])[0]["engine"], "open");
}

#[test]
fn of_the_variants_the_one_for_this_machine_is_recommended_and_the_others_say_why_not() {
    let publisher = Publisher::new();
    publisher.publish("parrot", "0.1.0", |manifest| manifest + "variant = \"cpu\"\n");
    publisher.publish("parrot", "0.1.0", |manifest| {
        format!("variant = \"metal\"\n{manifest}\n[accel]\napi = \"metal\"\n")
    });
    publisher.publish("kea", "0.1.0", |manifest| manifest + "\n[accel]\napi = \"coreml\"\n");
    let client = client(&publisher);
    let shown = client.run(&["plugins", "install", "--recommended", "--dry-run"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for line in [
        "kea: not for this machine",
        "  kea 0.1.0: it needs an Apple GPU or neural engine, and this machine has none",
        "parrot 0.1.0 (cpu) from registry birds, by wren",
        "  parrot 0.1.0 (cpu): runs on the CPU",
        "  parrot 0.1.0 (metal): it needs an Apple GPU or neural engine, and this machine has none",
    ] {
        assert!(shown.stdout.lines().any(|shown| shown.starts_with(line)), "{line}: {}", shown.stdout);
    }
    assert_eq!(client.run(&["plugins", "install", "--recommended"]).code, Some(0));
    let listed = json_of(&client, &["plugins", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["installation"]["variant"], "cpu", "{listed}");
    let other = client.run(&["plugins", "install", "parrot", "--variant", "metal"]);
    assert_eq!(other.code, Some(69), "{other:?}");
    let none = client.run(&["plugins", "install", "parrot", "--variant", "rocm"]);
    assert!(none.stderr.contains("no variant \"rocm\" of that version; there are: cpu, metal"), "{none:?}");
}

/// Its probe finds no device, and says what is missing.
fn birdless(source: &str) -> String {
    let devices = r#"\"devices\":[{\"id\":\"cpu\",\"accel\":\"cpu\",\"name\":\"CPU\"}]"#;
    assert!(source.contains(devices), "{source}");
    source.replace(devices, r#"\"devices\":[],\"reason\":\"there is no perch\""#)
}

#[test]
fn a_plugin_that_finds_no_device_is_not_recommended_and_not_installed() {
    let publisher = Publisher::new();
    // In the order of their names, so that what comes first does not end it.
    publisher.publish_with("ara", "0.1.0", &|source| birdless(&source), |manifest| manifest);
    publisher.publish("parrot", "0.1.0", |manifest| manifest);
    let client = client(&publisher);
    let shown = client.run(&["plugins", "install", "--recommended"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(
        shown.stdout.contains("ara: not for this machine\n  ara 0.1.0: there is no perch\n"),
        "{shown:?}"
    );
    assert_eq!(versions(&client).0, "0.1.0");

    let report = json_of(&client, &["plugins", "install", "--recommended"]);
    let left_out = json!([{"plugin": "ara", "reasons": ["ara 0.1.0: there is no perch"]}]);
    assert_eq!((&report["left_out"], &report["failed"]), (&left_out, &json!([])), "{report}");
    assert_eq!(report["installed"][0]["plugin"], "parrot", "{report}");

    // Asked for by its name, it is a failure, and no reason not to install the other one.
    assert_eq!(client.run(&["plugins", "remove", "parrot"]).code, Some(0));
    let refused = client.run(&["plugins", "install", "ara", "parrot"]);
    assert_eq!(refused.code, Some(69), "{refused:?}");
    assert!(refused.stderr.contains("its gate \"probe\" failed: there is no perch"), "{refused:?}");
    assert_eq!(versions(&client).0, "0.1.0");
}

#[test]
fn a_recommended_plugin_that_is_broken_is_a_failure_that_spares_the_others() {
    let publisher = Publisher::new();
    publisher.publish("ara", "0.1.0", |manifest| manifest.replace("lib/ara", "plugin.toml"));
    publisher.publish("parrot", "0.1.0", |manifest| manifest);
    let client = client(&publisher);
    let finished = client.run(&["plugins", "install", "--recommended", "--json"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("ara 0.1.0 was not installed"), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).expect("json");
    assert_eq!(
        (&report["failed"][0]["plugin"], &report["left_out"]),
        (&json!("ara"), &json!([])),
        "{report}"
    );
    assert_eq!(report["installed"][0]["plugin"], "parrot", "{report}");
    assert_eq!(versions(&client).0, "0.1.0");
}

#[test]
fn wrong_use_is_answered_in_a_sentence() {
    let publisher = Publisher::new();
    publisher.publish("parrot", "0.1.0", |manifest| manifest);
    let client = client(&publisher);
    let table: [(&[&str], i32, &str); 6] = [
        (&["plugins", "install", "dodo"], 66, "registry birds has no plugin \"dodo\""),
        (&["plugins", "install", "parrot@9"], 66, "there are: 0.1.0"),
        (&["plugins", "install", "parrot@new"], 64, "does not say which versions"),
        (&["plugins", "install", "parrot", "--registry", "fish"], 64, "there are: birds"),
        (&["plugins", "update", "parrot"], 66, "has installed parrot"),
        (&["plugins", "remove", "parrot"], 66, "\"parrot\" is not installed"),
    ];
    for (command, code, words) in table {
        let finished = client.run(command);
        assert_eq!(finished.code, Some(code), "{command:?}: {finished:?}");
        assert!(finished.stderr.contains(words), "{command:?}: {finished:?}");
    }
    let without = Setup::new().run(&["plugins", "install", "parrot"]);
    assert!(without.stderr.contains("no registry is configured"), "{without:?}");
}

#[test]
fn a_revoked_package_and_a_changed_one_are_refused() {
    let publisher = Publisher::new();
    let hash = publisher.publish("parrot", "0.1.0", |manifest| manifest);
    let client = client(&publisher);
    publisher.change_blob(&hash);
    let refused = client.run(&["plugins", "install", "parrot"]);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("is not the one that was signed"), "{refused:?}");
    publisher.revoke(&hash);
    let refused = client.run(&["plugins", "install", "parrot"]);
    assert!(refused.stderr.contains("was revoked by registry birds"), "{refused:?}");
}

#[test]
fn a_plugins_folder_that_others_may_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let publisher = Publisher::new();
    publisher.publish("parrot", "0.1.0", |manifest| manifest);
    let client = client(&publisher);
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(client.path("plugins"), open).expect("mode");
    let refused = client.run(&["plugins", "install", "parrot"]);
    assert_eq!(refused.code, Some(74), "{refused:?}");
    assert!(
        refused.stderr.contains("may be written by everybody: forbid that with chmod o-w"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn selection_explains_itself() {
    let broken = "name = \"gpu\"\nversion = \"1.0.0\"\npublisher = \"p\"\nlicense = \"MIT\"\ndescription = \"d\"\n\
                  abi = \">=1.0, <2\"\nentry = \"lib/x\"\nformats = [\"echo\"]\n[accel]\napi = \"metal\"\n";
    let setup = Setup::echo().file("plugins/gpu/plugin.toml", broken);
    let table = setup.run(&["why", "parrot"]);
    assert_eq!(table.code, Some(0), "{table:?}");
    assert!(table.stdout.contains("1      echo    0.1.0    cpu, priority 20"), "{table:?}");
    assert!(
        table.stdout.contains("-      gpu     1.0.0    it needs an Apple GPU or neural engine"),
        "{table:?}"
    );
    let disabled = setup.command(&["why", "parrot"]).env("PAJAMAS_SELECTION_DISABLED", "echo").output();
    let disabled = String::from_utf8(disabled.expect("why runs").stdout).expect("text");
    assert!(disabled.contains("disabled by selection.disabled"), "{disabled}");
    let probed = json_of(&setup, &["probe"]);
    assert!(probed["hardware"]["cpu"]["threads"].as_u64() >= Some(1), "{probed}");
    assert_eq!(probed["plugins"].as_array().map(Vec::len), Some(2), "{probed}");

    let host = setup.start();
    let why = host.get("/admin/models/parrot/why").await;
    assert_eq!((why.status, &why.body["plugins"][0]["place"]), (200, &json!(1)), "{why:?}");
    assert_eq!(why.body["plugins"][1]["failed_check"], "device", "{why:?}");
    assert_eq!(host.get("/admin/models/ghost/why").await.status, 404);
    assert_eq!(host.get("/admin/models/parrot/how").await.status, 404);
    let hardware = host.get("/admin/hardware").await;
    assert!(hardware.body["now"]["memory"]["available_bytes"].as_u64() > Some(0), "{hardware:?}");
    let metrics = host.get("/metrics").await;
    assert!(
        metrics.body.as_str().is_some_and(|text| text.contains("pajamas_machine_memory_available_bytes "))
    );
}
