"""Converts a GGUF file of a Llama into a checkpoint as mlx_lm writes them.

    gguf_to_mlx.py FOLDER OUTPUT [--bits BITS]

FOLDER holds one GGUF file. OUTPUT gets config.json, model.safetensors (float16, or groups of BITS), tokenizer.json,
tokenizer_config.json and generation_config.json.

The quantisation is MLX's "affine": each group of 64 elements of a row has a scale and a bias, and the elements are
packed into 32-bit words, the first in the lowest bits (mlx/backend/cpu/quantized.cpp).
"""

import argparse
import json
import struct
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize

GROUP = 64
CONTROL = 3


def field(reader, name, default=None):
    found = reader.fields.get(name)
    return default if found is None else found.contents()


def unpermute(weight, heads):
    """llama.cpp stores the rows of queries and keys so that RoPE turns neighbours; the original turns halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hub_name(name):
    """The name that transformers gives a tensor."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    blk, layer, part, kind = name.split(".")
    assert blk == "blk", name
    return f"model.layers.{layer}.{NAMES[part]}.{kind}"


def weights(reader, heads, kv_heads):
    for tensor in reader.tensors:
        value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if ".attn_q." in tensor.name:
            value = unpermute(value, heads)
        elif ".attn_k." in tensor.name:
            value = unpermute(value, kv_heads)
        yield hub_name(tensor.name), value


def quantize(weight, bits):
    """Packed words, scales and biases of a matrix, as mlx.core.quantize computes them."""
    rows, columns = weight.shape
    groups = weight.astype(np.float16).astype(np.float32).reshape(rows, columns // GROUP, GROUP)
    bins = np.float32((1 << bits) - 1)
    low, high = groups.min(axis=-1), groups.max(axis=-1)
    is_low_larger = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / bins, np.float32(1e-7))
    scale = np.where(is_low_larger, scale, -scale)
    edge = np.where(is_low_larger, low, high)
    first = np.rint(edge / scale)
    scale = np.where(first != 0, edge / np.where(first != 0, first, 1), scale)
    bias = np.where(first == 0, np.float32(0), edge)
    levels = np.clip(np.rint((groups - bias[..., None]) / scale[..., None]), 0, bins)
    levels = levels.astype(np.uint32).reshape(rows, columns * bits // 32, 32 // bits)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    packed = np.bitwise_or.reduce(levels << shifts, axis=-1).astype(np.uint32)
    return packed, scale.astype(np.float16), bias.astype(np.float16)


def arrays(reader, heads, kv_heads, bits):
    for name, value in weights(reader, heads, kv_heads):
        if bits and value.ndim == 2:
            packed, scales, biases = quantize(value, bits)
            stem = name.removesuffix(".weight")
            yield name, packed
            yield stem + ".scales", scales
            yield stem + ".biases", biases
        else:
            yield name, value.astype(np.float16)


def write_safetensors(path, entries):
    """The format of safetensors: length of the header, header, data. Written here, so that its bytes depend on nothing
    but the input."""
    kinds = {"float16": "F16", "uint32": "U32"}
    header, offset = {"__metadata__": {"format": "mlx"}}, 0
    for name, value in entries:
        end = offset + value.nbytes
        header[name] = {"dtype": kinds[value.dtype.name], "shape": list(value.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, value in entries:
            file.write(np.ascontiguousarray(value).tobytes())


def tokenizer(reader):
    """tokenizer.json of a byte-level BPE whose digits stand alone, as the pre-tokenizer "smollm" of llama.cpp has it."""
    assert field(reader, "tokenizer.ggml.model") == "gpt2" and field(reader, "tokenizer.ggml.pre") == "smollm"
    tokens = field(reader, "tokenizer.ggml.tokens")
    kinds = field(reader, "tokenizer.ggml.token_type")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    control = [
        {"id": number, "content": token, **flags}
        for number, (token, kind) in enumerate(zip(tokens, kinds))
        if kind == CONTROL
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": control,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, level],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in field(reader, "tokenizer.ggml.merges")],
        },
    }


def config(reader, bits):
    assert field(reader, "general.architecture") == "llama", "only the architecture llama can be converted"
    tokens = field(reader, "tokenizer.ggml.tokens")
    heads = field(reader, "llama.attention.head_count")
    values = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": field(reader, "llama.embedding_length"),
        "intermediate_size": field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": field(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": field(reader, "llama.attention.head_count_kv", heads),
        "max_position_embeddings": field(reader, "llama.context_length"),
        "rms_norm_eps": round(float(field(reader, "llama.attention.layer_norm_rms_epsilon")), 9),
        "rope_theta": float(field(reader, "llama.rope.freq_base", 10000.0)),
        "vocab_size": len(tokens),
        "tie_word_embeddings": not any(tensor.name == "output.weight" for tensor in reader.tensors),
        "bos_token_id": field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": field(reader, "tokenizer.ggml.eos_token_id"),
        "torch_dtype": "float16",
    }
    if bits:
        values["quantization"] = {"group_size": GROUP, "bits": bits}
    return values


def tokenizer_config(reader, settings):
    tokens = field(reader, "tokenizer.ggml.tokens")
    return {
        "bos_token": tokens[settings["bos_token_id"]],
        "eos_token": tokens[settings["eos_token_id"]],
        "chat_template": field(reader, "tokenizer.chat_template"),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def generation_config(settings):
    return {"eos_token_id": settings["eos_token_id"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--bits", type=int, choices=[4, 8], default=None)
    arguments = parser.parse_args()
    [source] = sorted(arguments.folder.glob("*.gguf"))
    reader = GGUFReader(source)
    settings = config(reader, arguments.bits)
    heads, kv_heads = settings["num_attention_heads"], settings["num_key_value_heads"]
    arguments.output.mkdir(parents=True, exist_ok=True)

    def save(name, value):
        (arguments.output / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")

    entries = list(arrays(reader, heads, kv_heads, arguments.bits))
    write_safetensors(arguments.output / "model.safetensors", entries)
    save("config.json", settings)
    save("tokenizer.json", tokenizer(reader))
    save("tokenizer_config.json", tokenizer_config(reader, settings))
    save("generation_config.json", generation_config(settings))


if __name__ == "__main__":
    main()
