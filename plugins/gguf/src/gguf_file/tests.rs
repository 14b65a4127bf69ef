//! Sound, cut and damaged headers.

use proptest::prelude::*;

use super::*;

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn pair(out: &mut Vec<u8>, key: &str, kind: u32, value: &[u8]) {
    text(out, key);
    out.extend(kind.to_le_bytes());
    out.extend(value);
}

/// A file with three pairs and two tensors of 64 and 40 elements of f32 (types 0).
fn sample() -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    out.extend(4u64.to_le_bytes());
    let mut value = Vec::new();
    text(&mut value, "llama");
    pair(&mut out, "general.architecture", 8, &value);
    pair(&mut out, "llama.context_length", 4, &2048u32.to_le_bytes());
    let mut list = 8u32.to_le_bytes().to_vec();
    list.extend(2u64.to_le_bytes());
    text(&mut list, "a");
    text(&mut list, "bc");
    pair(&mut out, "tokenizer.ggml.tokens", 9, &list);
    let mut scores = 6u32.to_le_bytes().to_vec();
    scores.extend(2u64.to_le_bytes());
    scores.extend([0; 8]);
    pair(&mut out, "tokenizer.ggml.scores", 9, &scores);
    for (name, dimensions, offset) in [("one", vec![32u64, 2], 0u64), ("two", vec![40], 256)] {
        text(&mut out, name);
        out.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|dimension| out.extend(dimension.to_le_bytes()));
        out.extend(0u32.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32) + 256 + 160, 7);
    out
}

fn read(bytes: &[u8]) -> Result<GgufFile, GgufError> {
    GgufFile::read(bytes, bytes.len() as u64)
}

#[test]
fn metadata_and_sizes_are_read() {
    let file = read(&sample()).unwrap();
    assert_eq!(file.text("general.architecture"), Some("llama"));
    assert_eq!(file.u32("llama.context_length"), Some(2048));
    assert_eq!(file.texts("tokenizer.ggml.tokens"), ["a", "bc"]);
    assert_eq!(file.value("tokenizer.ggml.scores"), Some(&Value::Other(2)));
    assert_eq!((file.tensors, file.parameters, file.tensor_bytes), (2, 104, 416));
}

#[test]
fn every_cut_is_found() {
    let sample = sample();
    for len in 0..sample.len() {
        let error = read(&sample[..len]).unwrap_err();
        assert!(matches!(error, GgufError::Truncated(_)), "{len}: {error}");
    }
}

#[test]
fn wrong_headers_say_what_is_wrong() {
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = sample();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        read(&changed).unwrap_err().to_string()
    };
    for (at, bytes, wanted) in [
        (0, &b"PK\x03\x04"[..], "not a GGUF file"),
        (4, &1u32.to_le_bytes(), "version 1"),
        (4, &3u32.to_be_bytes(), "byte order"),
        (8, &u64::MAX.to_le_bytes(), "tensors"),
        (16, &u64::MAX.to_le_bytes(), "key-value pairs"),
        (24, &u64::MAX.to_le_bytes(), "limit"),
        (24, &60_000u64.to_le_bytes(), "cut off"),
    ] {
        let message = with(at, bytes);
        assert!(message.contains(wanted), "{at}: {message}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let mut with_magic = b"GGUF\x03\0\0\0".to_vec();
        with_magic.extend(bytes);
        let _ = read(&with_magic);
    }

    #[test]
    fn no_changed_byte_makes_it_panic_or_read_past_the_end(at in 0usize..600, byte in any::<u8>()) {
        let mut changed = sample();
        let at = at % changed.len();
        changed[at] = byte;
        if let Ok(file) = read(&changed) {
            prop_assert!(file.tensor_bytes <= changed.len() as u64);
        }
    }
}
