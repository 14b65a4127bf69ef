"""Converts the BERT checkpoint of all-MiniLM-L6-v2 into a GGUF file that llama.cpp can run as an embedding model.

Usage: minilm_to_gguf.py FOLDER OUTPUT, where FOLDER holds config.json, vocab.txt and model.safetensors, and OUTPUT is
the folder for the result.

The result depends on the input alone (no time, path or host name goes in), so `cargo xtask models` can check its hash.
The layout is the one that llama.cpp's own converter gives for `BertModel`: matrices as float16; vectors, positions and
token types as float32; the pooler is left out because the embedding is the mean of the last hidden states.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np

from weight_files import read_safetensors

# Tensors that an embedding does not need, or that llama.cpp computes by itself.
UNUSED_TENSORS = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}

# llama.cpp adds these rows to activations without a conversion, so they stay float32 although they are matrices.
FULL_PRECISION_TENSORS = {"position_embd.weight", "token_types.weight"}

SPECIAL_TOKENS = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}

# The mark (U+2581) that llama.cpp's WordPiece tokenizer puts before a token that begins a word.
WORD_START = "\u2581"


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, output = Path(sys.argv[1]), Path(sys.argv[2]) / "all-MiniLM-L6-v2.F16.gguf"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["architectures"] != ["BertModel"]:
        sys.exit(f"{folder}/config.json: expected the architecture BertModel, found {config['architectures']}")

    writer = gguf.GGUFWriter(output, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.BERT])
    add_hyperparameters(writer, config)
    add_vocabulary(writer, folder / "vocab.txt", config)
    add_tensors(writer, folder / "model.safetensors", config["num_hidden_layers"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_hyperparameters(writer: gguf.GGUFWriter, config: dict) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def add_vocabulary(writer: gguf.GGUFWriter, path: Path, config: dict) -> None:
    words = path.read_text(encoding="utf-8").split("\n")
    if words and words[-1] == "":
        words.pop()
    if len(words) != config["vocab_size"]:
        sys.exit(f"{path}: expected {config['vocab_size']} tokens, found {len(words)}")

    writer.add_tokenizer_model("bert")
    # A checkpoint of this kind has two token types; llama.cpp always uses the first.
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_list([stored_token(word) for word in words])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if word in SPECIAL_TOKENS else gguf.TokenType.NORMAL for word in words]
    )
    writer.add_bos_token_id(words.index("[CLS]"))
    writer.add_eos_token_id(words.index("[SEP]"))
    writer.add_unk_token_id(words.index("[UNK]"))
    writer.add_sep_token_id(words.index("[SEP]"))
    writer.add_pad_token_id(words.index("[PAD]"))
    writer.add_mask_token_id(words.index("[MASK]"))


def stored_token(word: str) -> str:
    """BERT marks the tokens that continue a word (`##`); llama.cpp marks those that begin one."""
    if word in SPECIAL_TOKENS:
        return word
    if word.startswith("##"):
        return word[2:]
    return WORD_START + word


def add_tensors(writer: gguf.GGUFWriter, path: Path, block_count: int) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, block_count)
    for name, tensor in read_safetensors(path):
        if name in UNUSED_TENSORS:
            continue
        stored_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored_name is None:
            sys.exit(f"{path}: the tensor {name} has no place in a GGUF BERT model")
        keeps_precision = tensor.ndim < 2 or stored_name in FULL_PRECISION_TENSORS
        writer.add_tensor(stored_name, tensor if keeps_precision else tensor.astype(np.float16))


if __name__ == "__main__":
    main()
