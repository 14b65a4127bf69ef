//! The command line: wrong use, its messages and exit codes.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Setup, built_plugins, fixture, real_model};

#[test]
fn wrong_use_gets_a_sentence_and_its_exit_code() {
    let echo = Setup::echo();
    let empty = Setup::new();
    let cases: [(&Setup, &[&str], i32, &str); 6] = [
        (&echo, &["serve", "--no-such-flag"], 64, "--no-such-flag"),
        (&echo, &["serve", "--listen", "nonsense"], 64, "nonsense"),
        (&echo, &["serve", "--listen", "0.0.0.0:0"], 64, "--insecure"),
        (&empty, &["serve", "--listen", "127.0.0.1:0"], 66, "plugin"),
        (&echo, &["run", "ghost", "hello"], 66, "ghost"),
        (&echo, &["models", "inspect", "/nowhere/x.echo"], 66, "/nowhere/x.echo"),
    ];
    for (setup, args, code, named) in cases {
        let finished = setup.run(args);
        assert_eq!(finished.code, Some(code), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(named), "{args:?}: {finished:?}");
        assert!(!finished.stderr.contains("panicked"), "{args:?}: {finished:?}");
    }
}

#[test]
fn a_model_that_nothing_here_can_run_is_inspected_all_the_same() {
    let manifest = std::fs::read_to_string(fixture("echo").join("plugin.toml")).expect("manifest");
    let setup = Setup::echo().file("plugins/echo/plugin.toml", &(manifest + "\n[accel]\napi = \"metal\"\n"));
    let inspected = setup.run(&["models", "inspect", "parrot", "--json"]);
    assert_eq!(inspected.code, Some(0), "{inspected:?}");
    let inspected: Value = serde_json::from_str(&inspected.stdout).expect("json");
    assert_eq!(inspected["plugin"], "echo", "{inspected}");
    let refused = setup.run(&["run", "parrot", "hello"]);
    assert!(refused.stderr.contains("it needs an Apple GPU"), "{refused:?}");

    // What is in an Apple package can be told on every system.
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let Some(built) = built_plugins(&["coreml"]) else { return };
    let package = plugins.join("coreml/testdata/classifier.mlpackage");
    let inspected =
        Setup::new().plugins(&built).run(&["models", "inspect", &package.to_string_lossy(), "--json"]);
    assert_eq!(inspected.code, Some(0), "{inspected:?}");
    let inspected: Value = serde_json::from_str(&inspected.stdout).expect("json");
    assert_eq!(inspected["plugin"], "coreml", "{inspected}");
    assert_eq!(inspected["info"]["tasks"][0], "classify", "{inspected}");
}

#[test]
fn a_port_in_use_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let address = listener.local_addr().expect("address").to_string();
    let finished = Setup::echo().run(&["serve", "--listen", &address]);
    assert_eq!(finished.code, Some(69), "{finished:?}");
    assert!(finished.stderr.contains(&address), "{finished:?}");
}

#[test]
fn a_wrong_configuration_names_file_and_field() {
    for (text, named) in [
        ("listen = 5", "listen"),
        ("colour = \"red\"", "colour"),
        ("[worker]\nload_timeout_ms = -1", "load_timeout_ms"),
    ] {
        let finished = Setup::echo().config(text).run(&["models", "list"]);
        assert_eq!(finished.code, Some(64), "{text}: {finished:?}");
        assert!(finished.stderr.contains("pajamas.toml"), "{text}: {finished:?}");
        assert!(finished.stderr.contains(named), "{text}: {finished:?}");
    }
}

#[test]
fn run_answers_on_standard_output() {
    let finished = Setup::echo().run(&["run", "parrot", "polly wants a cracker"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.stdout.trim_end(), "polly wants a cracker");
    assert!(finished.stderr.contains("tokens/s"), "{finished:?}");
}

#[test]
fn lists_are_tables_and_json() {
    let setup = Setup::echo();
    for (args, named) in [(["plugins", "list"], "echo"), (["models", "list"], "parrot")] {
        let table = setup.run(&args);
        assert!(table.stdout.contains(named), "{table:?}");
        let json = setup.run(&[args[0], args[1], "--json"]);
        let value: Value = serde_json::from_str(&json.stdout).expect("json");
        assert!(value.to_string().contains(named), "{value}");
    }
}

#[test]
fn plugins_check_passes_a_good_plugin_and_names_the_faults_of_a_bad_one() {
    let setup = Setup::echo()
        .plugin("rogue")
        .file("plugins/rogue/rogue.toml", "behaviour = \"two-terminals\"\n")
        .model("bad.rogue", "");
    let check = |plugin: &str, model: &str| {
        let (plugin, model) = (setup.plugin_dir(plugin), setup.model_path(model));
        let (plugin, model) = (plugin.to_str().expect("path"), model.to_str().expect("path"));
        setup.run(&["plugins", "check", plugin, "--model", model])
    };
    let good = check("echo", "parrot.echo");
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.stdout.contains(" 0 failed, 0 crashed"), "{good:?}");
    let bad = check("rogue", "bad.rogue");
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(bad.stdout.contains("terminal"), "{bad:?}");
}

#[test]
fn completions_and_manual_are_generated() {
    for args in [&["completions", "bash"][..], &["man"]] {
        let finished = Setup::new().run(args);
        assert_eq!(finished.code, Some(0), "{args:?}: {finished:?}");
        assert!(finished.stdout.len() > 500, "{args:?}");
    }
}

#[test]
fn a_corrupt_gguf_and_one_too_large_for_memory_get_a_sentence() {
    let Some((plugins, model)) = real_model("smollm2") else { return };
    let gguf = std::fs::read_dir(&model)
        .expect("model folder")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ext| ext == "gguf"))
        .expect("a gguf file");
    let bytes = std::fs::read(&gguf).expect("model");
    let dir = tempfile::tempdir().expect("folder");
    let cut = dir.path().join("cut.gguf");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("write");
    let noise = dir.path().join("noise.gguf");
    std::fs::write(&noise, vec![7; 4096]).expect("write");
    for (path, named) in [(&cut, "cut.gguf"), (&noise, "noise.gguf")] {
        let path = path.to_str().expect("path");
        let finished = Setup::new().plugins(&plugins).run(&["run", path, "hello"]);
        assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
        assert!(finished.stderr.contains(named), "{finished:?}");
    }
    let setup =
        Setup::new().plugins(&plugins).config("[plugins.gguf.options]\nmemory_limit_bytes = 1000000\n");
    let finished = setup.run(&["run", gguf.to_str().expect("path"), "hello"]);
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    assert!(finished.stderr.contains("memory"), "{finished:?}");
}

/// One of the files that the host's own tests decode.
fn media(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/src/media/testdata");
    folder.join(name).to_str().expect("path").to_owned()
}

/// Sound in which `echo` hears a sentence for each second.
fn sound() -> String {
    media("pcm_16.wav")
}

#[test]
fn pictures_are_looked_at_by_what_the_model_does() {
    let tasks = |task: &str| format!("tasks = [\"{task}\"]\n");
    let setup = Setup::echo().model("who.echo", "").model("who.toml", &tasks("classify"));
    let setup = setup.model("like.echo", "").model("like.toml", &tasks("embed_image"));
    let setup = setup.model("mute.echo", "").model("mute.toml", &tasks("generate"));
    let square = media("square.png");
    let drawing = setup.model_path("out.png");
    let finished = setup.run(&["run", "parrot", "-i", &square, "-o", drawing.to_str().expect("path")]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert!(lines[0].starts_with("CLASS") && lines[1].starts_with("red"), "{finished:?}");
    assert!(std::fs::read(&drawing).expect("file").starts_with(b"\x89PNG"));
    let json = |model: &str| {
        let finished = setup.run(&["run", model, "--image", &square, "--json"]);
        serde_json::from_str::<Value>(&finished.stdout).expect("json")
    };
    let found = json("parrot");
    assert_eq!(
        (&found["task"], &found["width"], &found["detections"][0]["x"]),
        (&"detect".into(), &64.into(), &10.0.into())
    );
    assert_eq!(json("who")["classes"][0]["class_name"], "red");
    assert_eq!(json("like")["embedding"].as_array().map(Vec::len), Some(8));
    let cases: [(&[&str], &str); 4] = [
        (&["run", "mute", "-i", &square], "detect"),
        (&["run", "who", "-i", &square, "-o", "x.png"], "detects"),
        (&["run", "parrot", "-i", &square, "-o", "x.jpg"], ".png"),
        (&["run", "parrot", "what is this", "-i", &square], "--image"),
    ];
    for (args, named) in cases {
        let finished = setup.run(args);
        assert_eq!(finished.code, Some(64), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(named), "{args:?}: {finished:?}");
    }
}

#[test]
fn sound_is_written_down() {
    let setup = Setup::echo();
    let finished = setup.run(&["run", "parrot", "-a", &sound()]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.starts_with("Second 1.\n"), "{finished:?}");
    let finished = setup.run(&["run", "parrot", "--audio", &sound(), "--json"]);
    let document: Value = serde_json::from_str(&finished.stdout).expect("json");
    assert_eq!(
        (&document["model"], &document["segments"][0]["text"]),
        (&"parrot".into(), &"Second 1.".into())
    );
    assert_eq!(document["segments"][0]["words"][1]["text"], "1", "{document}");
}

#[test]
fn text_is_spoken_into_a_file() {
    let setup = Setup::echo();
    let file = setup.model_path("out.wav");
    let path = file.to_str().expect("path");
    let finished = setup.run(&["run", "parrot", "one two three", "-o", path, "--voice", "high"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stderr.contains("0.3 s of speech"), "{finished:?}");
    let bytes = std::fs::read(&file).expect("file");
    assert_eq!(bytes.len(), 44 + 3 * 1600 * 2);
    assert_eq!(bytes[40..44], (3 * 1600 * 2_u32).to_le_bytes(), "the header has the length");
    // What it speaks, it can hear.
    assert_eq!(setup.run(&["run", "parrot", "-a", path]).stdout, "Second 1.\n");
    for name in ["out.flac", "out.opus", "out.ogg", "out.pcm"] {
        let file = setup.model_path(name);
        let finished = setup.run(&["run", "parrot", "one", "-o", file.to_str().expect("path"), "--json"]);
        let document: Value = serde_json::from_str(&finished.stdout).expect("json");
        assert_eq!(document["seconds"], 0.1, "{document}");
        assert!(std::fs::metadata(&file).expect("file").len() > 100, "{name}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let setup = Setup::echo().model("mute.echo", "").model("mute.toml", "tasks = [\"generate\"]\n");
    let setup = setup.file("note.txt", "not a sound, not a picture");
    let sound = sound();
    let cases: [(&[&str], i32, &str); 10] = [
        (&["run", "parrot", "-a", "/nowhere/x.wav"], 66, "/nowhere/x.wav"),
        (&["run", "parrot", "-i", "/nowhere/x.png"], 66, "/nowhere/x.png"),
        (&["run", "parrot", "-a", "note.txt"], 65, "note.txt"),
        (&["run", "parrot", "-i", "note.txt"], 65, "note.txt"),
        (&["run", "mute", "-a", &sound], 64, "transcribe"),
        (&["run", "mute", "hello", "-o", "x.wav"], 64, "speak"),
        (&["run", "parrot", "hello", "-o", "x.mp3"], 64, ".flac"),
        (&["run", "parrot", "hello", "-o", "/nowhere/x.wav"], 74, "/nowhere/x.wav"),
        (&["run", "parrot", "hello", "-o", "x.wav", "--voice", "nobody"], 64, "low, high"),
        (&["run", "parrot", "-a", &sound, "-o", "x.wav"], 64, "--output"),
    ];
    for (args, code, named) in cases {
        let finished = setup.run(args);
        assert_eq!(finished.code, Some(code), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(named), "{args:?}: {finished:?}");
    }
}
