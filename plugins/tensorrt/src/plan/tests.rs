//! Headers of real engines, and what is wrong with others.

use proptest::prelude::*;

use super::*;

/// The first 64 bytes of engines that each version built of one ReLU, and the length of the whole file.
const HEADERS: [(&str, &str); 4] = [
    (
        "1.4.0",
        "76747274000000000200000000000000bc200200000000000104004c767472743e000000000000000000000000000000dc320000000000000000000000000000",
    ),
    (
        "1.5.0",
        "767472740000000002000000000000001c2202000000000001050072767472747e000000000000000000000000000000dc320000000000000000000000000000",
    ),
    (
        "1.6.1",
        "76747274000000000200000000000000842802000000000001060178767472747e000000000000000000000000000000f0320000000000000000000000000000",
    ),
    (
        "1.7.1",
        "76747274000000000200000000000000cc2802000000000001070174767472747e00000000000000000000000000000000000000000000000000000000000000",
    ),
];

fn engine(header: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&header[at..at + 2], 16).unwrap();
    let mut bytes: Vec<u8> = (0..header.len()).step_by(2).map(digits).collect();
    let len = u64::from_le_bytes(bytes[LENGTH_AT..LENGTH_AT + 8].try_into().unwrap());
    bytes.resize(usize::try_from(len).unwrap(), 0);
    bytes
}

fn own() -> Vec<u8> {
    engine(HEADERS[3].1)
}

#[test]
fn an_engine_of_another_version_is_refused_with_both_versions() {
    for (version, header) in HEADERS {
        match Plan::parse(engine(header)) {
            Ok(_) => assert_eq!(version, "1.7.1"),
            Err(problem) => {
                let begin =
                    format!("was built by TensorRT-RTX {version}, and this plugin has TensorRT-RTX 1.7.1: ");
                assert!(problem.starts_with(&begin), "{problem}");
            }
        }
    }
    assert_eq!(flavour::VERSION, [1, 7, 1], "then the last of these headers wants to be a newer one");
}

#[test]
fn what_is_no_whole_engine_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.engine");
    let own = own();
    let cut = &own[..own.len() - 1];
    let cases: [(&[u8], &str); 5] = [
        (b"", "is not an engine of TensorRT-RTX"),
        (b"vtrt", "is not an engine of TensorRT-RTX"),
        (&[b'x'; 200], "is not an engine of TensorRT-RTX"),
        (cut, "is cut off: 141515 bytes of 141516"),
        (&own[..64], "is cut off: 64 bytes of 141516"),
    ];
    for (content, problem) in cases {
        std::fs::write(&path, content).unwrap();
        let error = Plan::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadModel);
        assert_eq!(error.message(), format!("{} {problem}", path.display()));
    }
    assert_eq!(Plan::open(&folder.path().join("none.plan")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(Plan::open(folder.path()).unwrap_err().message().ends_with("is not a file"));
}

#[test]
fn what_ultralytics_writes_before_an_engine_is_its_metadata() {
    let json = r#"{"task": "detect", "stride": 32, "imgsz": [320, 320], "names": {"0": "cat", "1": "dog's \"toy\""}}"#;
    let file = [&u32::try_from(json.len()).unwrap().to_le_bytes()[..], json.as_bytes(), &own()].concat();
    let plan = Plan::parse(file).unwrap();
    assert_eq!(plan.bytes, own());
    let expected = [
        ("imgsz", "[320,320]"),
        ("names", r#"{0: "cat", 1: "dog's \"toy\""}"#),
        ("stride", "32"),
        ("task", "detect"),
    ];
    let found: Vec<_> = plan.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn engines_are_told_by_their_names() {
    for (name, is_one) in
        [("a.engine", true), ("b.plan", true), ("a.onnx", false), ("engine", false), ("a.engine.json", false)]
    {
        assert_eq!(Plan::is_named_like_one(Path::new(name)), is_one, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_engine_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Plan::parse(bytes);
    }

    #[test]
    fn a_damaged_header_is_an_engine_or_an_error(at in 0_usize..64, byte: u8, json in "\\{.{0,40}") {
        let mut plan = own();
        plan[at] = byte;
        let before = [&u32::try_from(json.len()).unwrap().to_le_bytes()[..], json.as_bytes()].concat();
        let _ = Plan::parse([before, plan.clone()].concat());
        if Plan::parse(plan).is_err() {
            prop_assert!(at < 4 || (LENGTH_AT..VERSION_AT + 3).contains(&at));
        }
    }
}
