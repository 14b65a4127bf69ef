//! Folders as users have them, and what becomes of them.

use std::fs;

use tempfile::TempDir;

use super::*;

/// A folder of models.
struct Shelf(TempDir);

impl Shelf {
    /// Each file holds its own path, so that sizes are known.
    fn with(files: &[&str]) -> Self {
        let shelf = Self(tempfile::tempdir().unwrap());
        files.iter().fold(shelf, |shelf, file| shelf.file(file, file))
    }

    fn file(self, path: &str, text: &str) -> Self {
        let file = self.0.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        self
    }

    fn scan(&self) -> Catalog {
        self.scan_places(&[""])
    }

    fn scan_places(&self, places: &[&str]) -> Catalog {
        let places: Vec<_> = places.iter().map(|place| self.0.path().join(place)).collect();
        Catalog::scan(&places, &["echo".to_owned()])
    }

    /// `id format path` of each model.
    fn models(&self) -> Vec<String> {
        let line =
            |model: &ModelSpec| format!("{} {} {}", model.id, model.format, self.relative(&model.path));
        self.scan().models.iter().map(line).collect()
    }

    /// `path: message` of each problem.
    fn problems(&self) -> Vec<String> {
        let line =
            |problem: &CatalogProblem| format!("{}: {}", self.relative(&problem.path), problem.message);
        self.scan().problems.iter().map(line).collect()
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.0.path()).unwrap().display().to_string()
    }
}

#[test]
fn every_format_is_found_wherever_it_lies() {
    let shelf = Shelf::with(&[
        "b.gguf",
        "deep/er/still/more/a.onnx",
        "llama/config.json",
        "llama/model.safetensors",
        "llama/extra/ignored.gguf",
        "vision.mlpackage/Data/weights.bin",
        "r.engine",
        "own.echo",
        "notes.txt",
        ".hidden.gguf",
        ".cache/c.gguf",
    ]);
    let expected = [
        "a onnx deep/er/still/more/a.onnx",
        "b gguf b.gguf",
        "llama mlx llama",
        "own echo own.echo",
        "r tensorrt r.engine",
        "vision coreml vision.mlpackage",
    ];
    assert_eq!(shelf.models(), expected);
    assert_eq!(shelf.problems(), [""; 0]);
    let size = |name: &str| shelf.scan().find(name).unwrap().size_bytes;
    assert_eq!(size("b"), "b.gguf".len() as u64);
    assert_eq!(size("vision"), "vision.mlpackage/Data/weights.bin".len() as u64);
}

#[test]
fn networks_beside_a_configuration_are_one_model_and_others_are_one_each() {
    let shelf = Shelf::with(&[
        "bert/config.json",
        "bert/model.safetensors",
        "bert/onnx/model.onnx",
        "bert/onnx/model_quantized.onnx",
        "clip-2.5/config.json",
        "clip-2.5/text_model.mlpackage/Manifest.json",
        "clip-2.5/vision_model.mlpackage/Manifest.json",
        "whisper/config.json",
        "whisper/decoder_model.onnx",
        "whisper/encoder_model.onnx",
        "voices/joe.onnx",
        "voices/joe.onnx.json",
        // The configuration must lie in the model's own folder.
        "loose/onnx/config.txt",
        "loose/onnx/yolo.onnx",
    ]);
    let expected = [
        "bert onnx bert",
        "clip-2.5 coreml clip-2.5",
        "joe onnx voices/joe.onnx",
        "whisper onnx whisper",
        "yolo onnx loose/onnx/yolo.onnx",
    ];
    assert_eq!(shelf.models(), expected);
    assert_eq!(shelf.problems(), [""; 0]);
    assert_eq!(shelf.scan().find("whisper").unwrap().files.len(), 3);
    // Who names one network gets that one.
    let named = shelf.scan_places(&["bert/onnx/model_quantized.onnx"]);
    assert_eq!(named.models.len(), 1);
    assert_eq!(shelf.relative(&named.models[0].path), "bert/onnx/model_quantized.onnx");
}

#[test]
fn the_fifth_level_is_not_searched() {
    assert_eq!(Shelf::with(&["1/2/3/4/5/x.gguf"]).models(), [""; 0]);
}

#[test]
fn parts_of_a_model_count_once() {
    let shelf = Shelf::with(&["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]);
    assert_eq!(shelf.models(), ["big gguf big-00001-of-00002.gguf"]);
    let model = shelf.scan().models.remove(0);
    assert_eq!(model.size_bytes, 2 * "big-00001-of-00002.gguf".len() as u64);
    assert_eq!(
        model.files.iter().map(|file| shelf.relative(file)).collect::<Vec<_>>(),
        ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]
    );
}

#[test]
fn a_model_that_lacks_a_part_is_reported_once() {
    for present in [&["big-00001-of-00003.gguf"][..], &["big-00002-of-00003.gguf", "big-00003-of-00003.gguf"]]
    {
        let shelf = Shelf::with(present);
        assert_eq!(shelf.models(), [""; 0]);
        let problems = shelf.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("the model is not complete without it"), "{problems:?}");
    }
}

#[test]
fn settings_apply_to_the_only_model_of_the_folder_or_to_the_named_one() {
    let settings = "name = 'tiny'\naliases = ['t']\nplugin = 'gguf'\ntasks = ['embed']\nlabels = ['cat']\n\
                    options = { context = 512 }";
    let alone = Shelf::with(&["m/x.gguf"]).file("m/model.toml", settings);
    let named =
        Shelf::with(&["m/x.gguf", "m/y.gguf"]).file("m/model.toml", &format!("file = 'x.gguf'\n{settings}"));
    let beside = Shelf::with(&["m/x.gguf", "m/y.gguf"]).file("m/x.toml", settings);
    let inside = Shelf::with(&["m/config.json", "m/x.safetensors"]).file("m/model.toml", settings);
    let parts = Shelf::with(&["x-00001-of-00001.gguf"]).file("x.toml", settings);
    for shelf in [alone, named, beside, inside, parts] {
        let catalog = shelf.scan();
        assert_eq!(catalog.problems, []);
        let model = catalog.find("tiny").unwrap();
        assert_eq!(catalog.find("t").unwrap(), model);
        assert_eq!(catalog.find(model.path.to_str().unwrap()).unwrap(), model);
        assert_eq!(model.plugin_pin.as_deref(), Some("gguf"));
        assert_eq!(model.tasks_override, Some(vec![Task::Embed]));
        assert_eq!(model.labels, ["cat"]);
        assert_eq!(model.options["context"], 512);
        assert!(catalog.models.iter().filter(|other| other.id != "tiny").all(|other| other.id == "y"));
    }
}

#[test]
fn settings_give_a_format_to_what_has_none() {
    let shelf = Shelf::with(&["m/weights.bin"]).file("m/model.toml", "file = 'weights.bin'\nformat = 'own'");
    assert_eq!(shelf.models(), ["weights own m/weights.bin"]);
    let unnamed = Shelf::with(&["m/weights.bin"]).file("m/model.toml", "file = 'weights.bin'");
    assert_eq!(unnamed.models(), [""; 0]);
    assert!(unnamed.problems()[0].ends_with("weights.bin is unknown: name it with \"format\""));
}

#[test]
fn broken_settings_hide_their_own_model_only_and_are_reported() {
    let cases = [
        ("m/model.toml", "nmae = 'x'", "m/model.toml: is not valid: "),
        ("m/model.toml", "file = 'z.gguf'", "m/model.toml: field \"file\" names "),
        ("m/x.toml", "name = ''", "m/x.toml: field \"name\""),
    ];
    for (path, text, expected) in cases {
        let shelf = Shelf::with(&["m/x.gguf", "other/y.gguf"]).file(path, text);
        assert!(shelf.models().contains(&"y gguf other/y.gguf".to_owned()), "{path}");
        let problems = shelf.problems();
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{problems:?}");
    }
}

#[test]
fn settings_that_could_mean_several_models_change_none() {
    let shelf = Shelf::with(&["m/x.gguf", "m/y.gguf"]).file("m/model.toml", "name = 'tiny'");
    assert_eq!(shelf.models(), ["x gguf m/x.gguf", "y gguf m/y.gguf"]);
    assert_eq!(shelf.problems(), ["m/model.toml: 2 models lie beside it: name one with \"file\""]);
    let none = Shelf::with(&[]).file("m/model.toml", "name = 'tiny'");
    assert!(none.problems()[0].contains("no model without settings of its own lies beside it"));
}

#[test]
fn models_of_one_name_are_told_apart_by_their_folders() {
    let shelf = Shelf::with(&["a/model.onnx", "b/model.onnx", "c/b/model.onnx"]);
    let expected = ["b/model onnx b/model.onnx", "c/b/model onnx c/b/model.onnx", "model onnx a/model.onnx"];
    assert_eq!(shelf.models(), expected);
    let problems = shelf.problems();
    assert_eq!(problems.len(), 2);
    assert!(
        problems[0].starts_with(
            "b/model.onnx: another model is called \"model\" already, so this one is \"b/model\""
        ),
        "{problems:?}"
    );
}

#[test]
fn what_lies_beside_an_onnx_file_belongs_to_it() {
    let shelf =
        Shelf::with(&["v/joe.onnx", "v/joe.onnx.json", "v/joe.onnx.data", "v/joe.txt", "m/model.onnx"])
            .file("m/model.toml", "name = 'detector'");
    let catalog = shelf.scan();
    assert_eq!(catalog.problems, []);
    let files = &catalog.find("joe").unwrap().files;
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    assert_eq!(names, ["joe.onnx", "joe.onnx.data", "joe.onnx.json"]);
    assert_eq!(catalog.find("detector").unwrap().files.len(), 1);
}

#[test]
fn an_alias_never_hides_a_model() {
    let shelf = Shelf::with(&["a.gguf", "z.gguf"]).file("a.toml", "aliases = ['z', 'both', 'both']");
    let catalog = shelf.scan();
    assert_eq!(catalog.find("z").unwrap().id, "z");
    assert_eq!(catalog.find("a").unwrap().aliases, ["both"]);
    assert_eq!(catalog.problems.len(), 2);
    assert_eq!(catalog.problems[0].message, "the alias \"z\" names another model already and is ignored");
}

#[test]
fn a_place_may_be_one_model() {
    let shelf =
        Shelf::with(&["a.gguf", "b.gguf", "big-00001-of-00002.gguf", "big-00002-of-00002.gguf", "x.txt"])
            .file("llama/config.json", "")
            .file("llama/m.safetensors", "");
    let ids =
        |place| shelf.scan_places(&[place]).models.into_iter().map(|model| model.id).collect::<Vec<_>>();
    assert_eq!(ids("b.gguf"), ["b"]);
    assert_eq!(ids("big-00002-of-00002.gguf"), ["big"]);
    assert_eq!(ids("llama"), ["llama"]);
    let described = Shelf::with(&["m/x.gguf"]).file("m/model.toml", "name = 'tiny'");
    assert_eq!(described.scan_places(&["m/x.gguf"]).models[0].id, "tiny");
    let broken = Shelf::with(&["m/x.gguf"]).file("m/model.toml", "nmae = 'tiny'");
    assert!(broken.scan_places(&["m/x.gguf"]).problems[0].message.contains("nmae"));
    let both = Shelf::with(&["m/x.gguf", "m/config.json", "m/y.safetensors"]);
    assert_eq!(both.scan_places(&["m/x.gguf"]).models[0].id, "x");
    let problem = |place| shelf.scan_places(&[place]).problems.remove(0).message;
    assert_eq!(problem("x.txt"), "is not a model of a known format");
    assert!(problem("missing").starts_with("does not exist"));
}

#[cfg(unix)]
#[test]
fn overlapping_places_and_links_upwards_give_each_model_once() {
    let shelf = Shelf::with(&["a/x.gguf"]);
    std::os::unix::fs::symlink(shelf.0.path(), shelf.0.path().join("a/up")).unwrap();
    std::os::unix::fs::symlink(shelf.0.path().join("a/x.gguf"), shelf.0.path().join("x-link.gguf")).unwrap();
    let catalog = shelf.scan_places(&["a", "", "a/x.gguf"]);
    assert_eq!(catalog.models.len(), 1, "{catalog:?}");
    assert_eq!(catalog.problems, []);
}

#[cfg(unix)]
#[test]
fn links_to_one_file_with_names_of_their_own_are_several_models() {
    let shelf = Shelf::with(&["a/x.gguf"])
        .file("b/model.toml", "name = 'slow'")
        .file("c/model.toml", "name = 'fast'");
    for folder in ["b", "c"] {
        let (file, link) = (shelf.0.path().join("a/x.gguf"), shelf.0.path().join(folder).join("x.gguf"));
        std::os::unix::fs::symlink(file, link).unwrap();
    }
    let catalog = shelf.scan_places(&["", "b"]);
    let mut names: Vec<&str> = catalog.models.iter().map(|model| model.id.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["fast", "slow", "x"]);
    assert_eq!(catalog.problems, []);
}

#[test]
fn the_search_ends_at_the_limit_and_says_so() {
    let shelf = Shelf::with(&[]);
    for number in 0..=ENTRIES_MAX {
        fs::write(shelf.0.path().join(number.to_string()), "").unwrap();
    }
    assert_eq!(
        shelf.problems(),
        [format!(": was not searched to its end: {ENTRIES_MAX} entries are the limit")]
    );
}
