//! Files that are cut, damaged, or something else.

use pajamas_executorch::Program;
use pajamas_executorch::options::Options;
use pajamas_plugin_api::ErrorKind;
use proptest::prelude::*;

use crate::support::{file, open, options, written};

#[test]
fn what_is_no_program_is_refused_by_name() {
    let good = std::fs::read(file("conv_xnnpack.pte")).unwrap();
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("empty", Vec::new(), "no program of ExecuTorch"),
        (
            "text",
            b"hello, this is no program at all, but it is long enough".to_vec(),
            "no program of ExecuTorch",
        ),
        ("half", good[..good.len() / 2].to_vec(), "is cut"),
        ("one byte less", good[..good.len() - 1].to_vec(), "is cut"),
        ("header only", good[..64].to_vec(), "is cut"),
    ];
    for (what, bytes, expected) in cases {
        let (_folder, path) = written(&bytes);
        let error = Program::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadModel, "{what}");
        assert!(
            error.message().contains(expected) && error.message().contains("model.pte"),
            "{what}: {error}"
        );
    }
    let error = Program::open(&file("missing.pte")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Reading the description neither panics nor takes memory that the file does not have.
    #[test]
    fn damage_is_an_error_or_harmless_to_the_description(
        place in 0_usize..4096, byte in any::<u8>(), cut in 0_usize..4096,
    ) {
        let mut bytes = std::fs::read(file("conv_portable.pte")).unwrap();
        let len = bytes.len();
        bytes[place % len] = byte;
        bytes.truncate(len - cut % 64);
        let (_folder, path) = written(&bytes);
        let _ = Program::open(&path);
    }
}

#[test]
fn cut_programs_are_refused_before_the_engine_sees_them() {
    let good = std::fs::read(file("add_mul.pte")).unwrap();
    for len in (0..good.len()).step_by(97) {
        let (_folder, path) = written(&good[..len]);
        let Some(opened) = open(&path, &options()) else { return };
        assert!(opened.is_err(), "{len} of {} bytes", good.len());
    }
}

/// Every byte of a small program, wrong in two ways: it is loaded or refused. It is not run, because the engine ends the process
/// when an operator gets a value of another kind.
#[test]
fn damage_is_an_error_or_harmless_to_the_engine() {
    let good = std::fs::read(file("add_mul.pte")).unwrap();
    let options = Options { warm_up: false, ..options() };
    for place in 0..good.len() {
        for byte in [good[place] ^ 1, 0xff] {
            let mut bytes = good.clone();
            bytes[place] = byte;
            let (_folder, path) = written(&bytes);
            if open(&path, &options).is_none() {
                return;
            }
        }
    }
}
