"""Makes the small checkpoints of this folder, each with the logits that mlx_lm computes for it.

    pip install "mlx[cpu]==0.32.2" mlx-lm==0.32.2
    python make.py

Each folder gets config.json, model.safetensors with random weights, and expected.safetensors with `tokens` and the
`logits` after each of them. The sizes are as small as they can be with every part of the architecture in use.
"""

import importlib
import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

BASE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "vocab_size": 40,
    "max_position_embeddings": 64,
}

CASES = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True, "rope_theta": 10000.0},
    "llama-untied": {"model_type": "llama", "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
    "llama-linear": {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama-llama3": {
        "model_type": "llama",
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "llama-yarn": {
        "model_type": "llama",
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    },
    "llama-window": {
        "model_type": "llama",
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "llama-4bit": {"model_type": "llama", "quantization": {"group_size": 32, "bits": 4}, "intermediate_size": 64},
    "llama-8bit": {"model_type": "llama", "quantization": {"group_size": 32, "bits": 8}, "intermediate_size": 64},
    "qwen2": {"model_type": "qwen2", "head_dim": None, "tie_word_embeddings": False},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True, "rope_theta": 1000000.0},
    "gemma": {"model_type": "gemma"},
    "gemma2": {
        "model_type": "gemma2",
        "query_pre_attn_scalar": 12.0,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "sliding_window": 4,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 12.0,
    },
}

TOKENS = [3, 17, 5, 39, 0, 21, 8, 8, 30, 12, 1, 26]


def make(name, changes):
    config = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(config))
    if not config.get("tie_word_embeddings", True) is False and hasattr(model, "sanitize"):
        model.sanitize({})
    mx.random.seed(7)
    # Larger than usual, so that every part changes the logits.
    model.update(tree_map(lambda array: mx.random.normal(array.shape) * 0.3, model.parameters()))
    if "quantization" in config:
        nn.quantize(model, **config["quantization"])
    logits = model(mx.array([TOKENS]))[0].astype(mx.float32)
    folder = Path(__file__).parent / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    mx.save_safetensors(
        str(folder / "expected.safetensors"), {"tokens": mx.array(TOKENS, mx.int32), "logits": logits}
    )


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    for name, changes in CASES.items():
        make(name, changes)
