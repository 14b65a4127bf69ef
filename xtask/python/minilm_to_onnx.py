"""Converts the BERT checkpoint of all-MiniLM-L6-v2 into the ONNX file that Hugging Face's Optimum exports.

Usage: minilm_to_onnx.py FOLDER OUTPUT, where FOLDER holds the checkpoint as sentence-transformers has it.

The network is `BertModel` without its pooler (Devlin et al. 2018): the pooling that makes an embedding of the hidden
states is described in the settings that are copied beside it.
"""

import json
import math
import shutil
import sys
from pathlib import Path

from onnx import TensorProto

from onnx_graph import FLOAT, INT64, Graph
from weight_files import read_safetensors

COPIED = ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "modules.json",
          "sentence_bert_config.json", "1_Pooling/config.json"]

# What is added to the scores of tokens that only fill up a row; exp(-10000) is 0 in single precision.
MASKED = -10000


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["architectures"] != ["BertModel"]:
        sys.exit(f"{folder}/config.json: expected the architecture BertModel, found {config['architectures']}")
    bert(config, dict(read_safetensors(folder / "model.safetensors"))).write(output / "model.onnx")
    for name in COPIED:
        (output / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / name, output / name)


def bert(config: dict, tensors: dict) -> Graph:
    graph = Graph("bert")
    shape = ["batch_size", "sequence_length"]
    tokens, attention_mask, types = (
        graph.input(name, INT64, shape) for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    x = embed(graph, config, tensors, (tokens, types))
    mask = added_mask(graph, attention_mask)
    for layer in range(config["num_hidden_layers"]):
        x = encoder_layer(graph, config, tensors, f"encoder.layer.{layer}", (x, mask))
    graph.output(x, "last_hidden_state", FLOAT, [*shape, config["hidden_size"]])
    return graph


def embed(graph: Graph, config: dict, tensors: dict, inputs: tuple) -> str:
    tokens, types = inputs
    table = lambda name: graph.constant(f"embeddings.{name}.weight", tensors[f"embeddings.{name}.weight"])
    # 0, 1, 2... in each row, from ones added up. Range would do too, but then the optimizer no longer knows that all
    # that follows has the shape of the tokens, and leaves additions and normalizations apart.
    ones = graph.node("Add", graph.node("Mul", tokens, graph.integer(0)), graph.integer(1))
    places = graph.node("Sub", graph.node("CumSum", ones, graph.integer(1)), graph.integer(1))
    word = graph.node("Gather", table("word_embeddings"), tokens, axis=0)
    kind = graph.node("Gather", table("token_type_embeddings"), types, axis=0)
    place = graph.node("Gather", table("position_embeddings"), places, axis=0)
    total = graph.node("Add", graph.node("Add", word, kind), place)
    return norm(graph, config, tensors, "embeddings.LayerNorm", total)


def added_mask(graph: Graph, attention_mask: str) -> str:
    """[batch, 1, 1, length]: 0 for a token, MASKED for padding."""
    mask = graph.node("Unsqueeze", graph.node("Unsqueeze", attention_mask, graph.integers(1)), graph.integers(2))
    mask = graph.node("Sub", graph.number("one", 1), graph.node("Cast", mask, to=TensorProto.FLOAT))
    return graph.node("Mul", mask, graph.number("masked", MASKED))


def encoder_layer(graph: Graph, config: dict, tensors: dict, layer: str, inputs: tuple) -> str:
    x, mask = inputs
    heads = config["num_attention_heads"]
    width = config["hidden_size"] // heads

    def linear(x: str, name: str) -> str:
        name = f"{layer}.{name}"
        return graph.linear(x, name, tensors[name + ".weight"], tensors[name + ".bias"])

    def projected(name: str, perm: list) -> str:
        parts = graph.node("Reshape", linear(x, "attention.self." + name), graph.integers(0, 0, heads, width))
        return graph.node("Transpose", parts, perm=perm)

    query, value = projected("query", [0, 2, 1, 3]), projected("value", [0, 2, 1, 3])
    scores = graph.node("MatMul", query, projected("key", [0, 2, 3, 1]))
    scores = graph.node("Div", scores, graph.number("sqrt_head_width", math.sqrt(width)))
    attention = graph.node("Softmax", graph.node("Add", scores, mask), axis=-1)
    together = graph.node("Transpose", graph.node("MatMul", attention, value), perm=[0, 2, 1, 3])
    together = graph.node("Reshape", together, graph.integers(0, 0, config["hidden_size"]))

    attended = graph.node("Add", linear(together, "attention.output.dense"), x)
    x = norm(graph, config, tensors, f"{layer}.attention.output.LayerNorm", attended)
    hidden = graph.gelu(linear(x, "intermediate.dense"))
    return norm(graph, config, tensors, f"{layer}.output.LayerNorm",
                graph.node("Add", linear(hidden, "output.dense"), x))


def norm(graph: Graph, config: dict, tensors: dict, name: str, x: str) -> str:
    return graph.layer_norm(x, name, tensors[name + ".weight"], tensors[name + ".bias"], config["layer_norm_eps"])


if __name__ == "__main__":
    main()
