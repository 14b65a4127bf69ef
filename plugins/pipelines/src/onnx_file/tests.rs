//! Headers of files that are written here, byte by byte.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use onnx_writer::{bytes, entry, int, model, tensor_info, varint, weights};

#[path = "../../tests/onnx_writer/mod.rs"]
mod onnx_writer;

fn read(file: &[u8]) -> Result<(OnnxFile, External), String> {
    OnnxFile::read(Cursor::new(file), file.len() as u64).map_err(|error| error.to_string())
}

#[test]
fn inputs_outputs_metadata_and_weights_are_told() {
    let packed = [varint(10), varint(20)].concat();
    let file = model(&[
        bytes(1, [bytes(1, "images"), bytes(2, "boxes"), bytes(4, "Conv")].concat()),
        bytes(5, weights("w", 1, &[3, 4], &[7; 48])),
        bytes(5, [bytes(1, packed), int(2, 3), bytes(8, "q")].concat()),
        bytes(5, weights("indices", 7, &[1000], &[7; 80])),
        bytes(11, tensor_info("w", 1, &[3, 4])),
        bytes(11, tensor_info("images", 1, &[-1, 3, 320, 320])),
        bytes(11, tensor_info("scale", 10, &[])),
        bytes(12, tensor_info("boxes", 16, &[-1, 22])),
        bytes(12, tensor_info("words", 8, &[-1])),
    ]);
    let (header, external) = read(&file).unwrap();
    let spec = |name: &str, dtype, shape: &[Option<usize>]| TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    assert_eq!(
        header.inputs,
        [spec("images", Dtype::F32, &[None, Some(3), Some(320), Some(320)]), spec("scale", Dtype::F16, &[])],
        "weights are no inputs"
    );
    assert_eq!(header.outputs, [spec("boxes", Dtype::Bf16, &[None, Some(22)])], "texts are left out");
    assert_eq!(header.metadata, BTreeMap::from([("task".to_owned(), "none".to_owned())]));
    assert_eq!((header.parameters, header.weight_type), (12 + 200, Some("INT8")));
    assert!(external.is_empty() && !header.has_dynamic_ranges);
}

#[test]
fn a_network_that_measures_its_activations_is_known() {
    let (header, _) = read(&model(&[bytes(1, bytes(4, "DynamicQuantizeLinear"))])).unwrap();
    assert!(header.has_dynamic_ranges);
}

#[test]
fn damaged_files_are_refused_with_a_reason() {
    let good = model(&[bytes(11, tensor_info("x", 1, &[1]))]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "is not an ONNX model"),
        (b"GGUF\x03\x00\x00\x00".to_vec(), "no protobuf message"),
        (int(1, 8), "is not an ONNX model"),
        (good[..good.len() - 5].to_vec(), "is cut off or damaged"),
        (good[..12].to_vec(), "is cut off or damaged"),
        ([int(1, 8), vec![7 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat(), "is cut off or damaged"),
        (model(&[bytes(11, tensor_info("x", 8, &[1]))]), "input `x`, which is no tensor of numbers"),
        (model(&[bytes(5, weights("w", 1, &[1 << 40, 1 << 40], &[]))]), "impossible size"),
        (model(&[bytes(5, weights("w", 1, &[1; 65], &[]))]), "too many dimensions"),
    ];
    for (file, expected) in cases {
        let message = read(&file).unwrap_err();
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn weights_in_other_files_must_be_there_and_inside_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let write = |location: &str, length: &str| {
        let place = [("location", location), ("offset", "4"), ("length", length)];
        let place: Vec<u8> = place.iter().flat_map(|(key, value)| bytes(13, entry(key, value))).collect();
        let tensor = [int(1, 5), int(2, 1), bytes(8, "w"), place, int(14, 1)].concat();
        std::fs::write(&path, model(&[bytes(5, tensor)])).unwrap();
    };
    let open = || OnnxFile::open(&path);
    write("weights.bin", "20");
    let error = open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("weights.bin, which cannot be read"), "{error}");

    std::fs::write(folder.path().join("weights.bin"), [0; 23]).unwrap();
    let message = open().unwrap_err().to_string();
    assert!(
        message.contains("weights.bin is cut off: 23 bytes") && message.contains("needs 24"),
        "{message}"
    );

    std::fs::write(folder.path().join("weights.bin"), [0; 24]).unwrap();
    let header = open().unwrap();
    assert_eq!((header.bytes, header.parameters), (std::fs::metadata(&path).unwrap().len() + 24, 5));

    for location in ["../weights.bin", "/etc/hostname", "a/../../weights.bin"] {
        write(location, "1");
        let message = open().unwrap_err().to_string();
        assert!(message.contains("not inside its own folder"), "{location}: {message}");
    }
    write("weights.bin", "many");
    assert!(open().unwrap_err().to_string().contains("`length` is `many`"));
}

#[test]
fn what_is_no_file_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let error = OnnxFile::open(&folder.path().join("none.onnx")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = OnnxFile::open(folder.path()).unwrap_err();
    assert!(error.message().contains("is not a file"), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(file in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&file);
    }

    #[test]
    fn a_model_with_flipped_bytes_is_read_or_refused(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut file = model(&[
            bytes(5, weights("w", 1, &[3, 4], &[7; 48])),
            bytes(11, tensor_info("images", 1, &[-1, 3])),
            bytes(12, tensor_info("boxes", 16, &[-1, 22])),
        ]);
        for (index, value) in flips {
            let index = index.index(file.len());
            file[index] = value;
        }
        let _ = read(&file);
        let _ = read(&file[..cut.index(file.len())]);
    }

    #[test]
    fn a_cut_model_is_never_taken_for_a_whole_one(cut in any::<prop::sample::Index>()) {
        // The graph comes last, so that every cut takes something away from it.
        let graph = [bytes(5, weights("w", 1, &[3, 4], &[7; 48])), bytes(11, tensor_info("images", 1, &[-1, 3]))].concat();
        let file = [int(1, 8), bytes(7, graph)].concat();
        prop_assert!(read(&file).is_ok());
        prop_assert!(read(&file[..cut.index(file.len())]).is_err());
    }
}
