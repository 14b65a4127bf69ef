//! Packages on the disk: whole, incomplete, and such that reach for what is not theirs.

use super::*;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// A copy that may be damaged.
fn copy(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join(name);
    for (inside, file) in Package::files(&testdata(name)).unwrap() {
        let target = to.join(inside);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
    (folder, to)
}

#[test]
fn packages_and_single_files_are_opened() {
    let package = Package::open(&testdata("encoder.mlpackage")).unwrap();
    assert_eq!(package.spec.kind, "mlProgram");
    let files = Package::files(&package.path).unwrap();
    assert_eq!(files.len(), 3);
    let bytes: u64 = files.values().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert_eq!((package.bytes, package.is_compiled), (bytes, false));
    assert_eq!(Package::open(&testdata("network.mlmodel")).unwrap().spec.kind, "neuralNetworkClassifier");
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let manifest = |package: &Path, from: &str, to: &str| {
        let file = package.join("Manifest.json");
        let text = fs::read_to_string(&file).unwrap().replace(from, to);
        fs::write(file, text).unwrap();
    };
    type Damage<'a> = (&'a dyn Fn(&Path), ErrorKind, &'a str);
    let cases: [Damage<'_>; 6] = [
        (&|p| fs::remove_file(p.join("Manifest.json")).unwrap(), ErrorKind::NotFound, "Manifest.json"),
        (&|p| fs::write(p.join("Manifest.json"), "{").unwrap(), ErrorKind::BadModel, "is damaged"),
        (
            &|p| fs::remove_dir_all(p.join("Data/com.apple.CoreML/weights")).unwrap(),
            ErrorKind::NotFound,
            "weights, which is not there",
        ),
        (
            &|p| manifest(p, "com.apple.CoreML/weights", "../../../etc"),
            ErrorKind::BadModel,
            "not inside the package",
        ),
        (
            &|p| manifest(p, "rootModelIdentifier\": \"", "rootModelIdentifier\": \"x"),
            ErrorKind::BadModel,
            "names the model",
        ),
        (
            &|p| fs::write(p.join("Data/com.apple.CoreML/model.mlmodel"), "GGUF").unwrap(),
            ErrorKind::BadModel,
            "no protobuf message",
        ),
    ];
    for (damage, kind, expected) in cases {
        let (_folder, package) = copy("encoder.mlpackage");
        damage(&package);
        let error = Package::open(&package).unwrap_err();
        assert!(error.kind() == kind && error.message().contains(expected), "{expected}: {error:?}");
    }
    assert_eq!(Package::open(Path::new("/none.mlpackage")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[cfg(unix)]
#[test]
fn links_out_of_a_package_are_not_followed() {
    let (_folder, package) = copy("encoder.mlpackage");
    std::os::unix::fs::symlink("/", package.join("Data/all")).unwrap();
    assert_eq!(
        Package::open(&package).unwrap().bytes,
        Package::open(&testdata("encoder.mlpackage")).unwrap().bytes
    );
}

#[test]
fn a_compiled_model_tells_the_same_as_its_package() {
    let folder = tempfile::tempdir().unwrap();
    let compiled = folder.path().join("x.mlmodelc");
    fs::create_dir(&compiled).unwrap();
    let metadata = r#"[{
        "metadataOutputVersion": "3.0", "specificationVersion": 7, "modelType": {"name": "MLModelType_mlProgram"},
        "author": "someone", "userDefinedMetadata": {"task": "detect"}, "classLabels": ["a", 2],
        "inputSchema": [
            {"name": "image", "type": "Image", "width": "64", "height": "32", "isColor": "1", "isOptional": "0", "hasSizeFlexibility": "0"},
            {"name": "ids", "type": "MultiArray", "dataType": "Int32", "shape": "[1, 8]", "hasShapeFlexibility": "1", "shapeRange": "[[1, 1], [1, 128]]"},
            {"name": "threshold", "type": "Double", "isOptional": "1"}],
        "outputSchema": [{"name": "p", "type": "Dictionary"}],
        "stateSchema": [{"name": "kv", "type": "State", "dataType": "Float16", "shape": "[1, 4]"}]}]"#;
    fs::write(compiled.join("metadata.json"), metadata).unwrap();
    let package = Package::open(&compiled).unwrap();
    assert!(package.is_compiled);
    let spec = package.spec;
    assert_eq!((spec.version, spec.kind, spec.main.probabilities.as_str()), (7, "mlProgram", "p"));
    assert_eq!(spec.labels, ["a", "2"]);
    assert_eq!((spec.metadata["author"].as_str(), spec.metadata["task"].as_str()), ("someone", "detect"));
    let kinds: Vec<_> =
        spec.main.inputs.iter().map(|input| format!("{:?}", input.kind.as_ref().unwrap())).collect();
    assert_eq!(
        kinds,
        [
            "Image(Image { width: Some(64), height: Some(32), color: Rgb })",
            "Array(Array { dtype: I32, shape: [Some(1), None] })",
            "Double"
        ]
    );
    assert!(spec.main.inputs[2].is_optional);
    assert_eq!(spec.main.states.len(), 1);

    for (text, expected) in
        [("[]", "describes no model"), ("{}", "is damaged"), ("[{\"inputSchema\": 3}]", "is damaged")]
    {
        fs::write(compiled.join("metadata.json"), text).unwrap();
        let message = Package::open(&compiled).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("metadata.json"), "{text}: {message}");
    }
}

proptest::proptest! {
    #[test]
    fn any_description_of_a_compiled_model_is_read_or_refused(
        name in ".{0,8}", kind in "(MultiArray|Image|State|.{0,5})", shape in "(\\[[-0-9, ]{0,12}\\]|.{0,8})",
    ) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metadata.json");
        let schema = serde_json::json!({"name": name, "type": kind, "shape": shape, "dataType": "Float32", "width": shape});
        fs::write(&file, serde_json::json!([{"inputSchema": [schema]}]).to_string()).unwrap();
        let _ = compiled::read(&file);
        fs::write(&file, shape).unwrap();
        let _ = compiled::read(&file);
    }
}
