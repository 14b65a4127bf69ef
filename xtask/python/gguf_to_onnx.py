"""Converts a GGUF file of a Llama into the decoder that Hugging Face's Optimum exports with its cache.

    gguf_to_onnx.py FOLDER OUTPUT [--layers LAYERS]

FOLDER holds one GGUF file. OUTPUT gets model.onnx with model.onnx_data, config.json, tokenizer.json,
tokenizer_config.json and generation_config.json. With LAYERS only the first so many are taken.

The network is Llama's (Touvron et al. 2023): RMSNorm, rotary positions (Su et al. 2021) and grouped queries. Inputs and
outputs have Optimum's names and shapes. Weights are stored in 16 bits, as the checkpoint for MLX has them, and computed in
32: the casts are of constants, so that an engine does them once, when it loads the file.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from onnx import TensorProto

from gguf_to_mlx import config, generation_config, tokenizer, tokenizer_config, weights
from onnx_graph import FLOAT, INT64, Graph

# What is added to the scores of tokens that are not seen; exp(-10000) is 0 in single precision.
MASKED = -10000


class Decoder:
    def __init__(self, settings: dict, tensors: dict):
        self.graph = Graph("decoder")
        self.settings, self.tensors = settings, tensors
        self.heads, self.kv_heads = settings["num_attention_heads"], settings["num_key_value_heads"]
        self.width = settings["hidden_size"] // self.heads

    def build(self) -> Graph:
        graph, settings = self.graph, self.settings
        layers = range(settings["num_hidden_layers"])
        tokens = graph.input("input_ids", INT64, ["batch_size", "sequence_length"])
        mask = graph.input("attention_mask", INT64, ["batch_size", "total_sequence_length"])
        positions = graph.input("position_ids", INT64, ["batch_size", "sequence_length"])
        cells = ["batch_size", self.kv_heads, "past_sequence_length", self.width]
        past = [[graph.input(f"past_key_values.{layer}.{part}", FLOAT, cells) for part in ("key", "value")]
                for layer in layers]
        table = graph.constant("model.embed_tokens.weight", self.tensors["model.embed_tokens.weight"])
        x = self.single(graph.node("Gather", table, tokens, axis=0))
        mask, rotation = self.added_mask(tokens, mask), self.rotation(positions)
        present = []
        for layer in layers:
            x, cells = self.layer(x, f"model.layers.{layer}", mask, rotation, past[layer])
            present.append(cells)
        x = self.norm(x, "model.norm")
        if settings["tie_word_embeddings"]:
            output = graph.node("Transpose", self.single(table), perm=[1, 0])
        else:
            output = self.single(graph.constant("lm_head.weight", self.tensors["lm_head.weight"].T))
        logits = graph.node("MatMul", x, output)
        graph.output(logits, "logits", FLOAT, ["batch_size", "sequence_length", settings["vocab_size"]])
        cells = ["batch_size", self.kv_heads, "total_sequence_length", self.width]
        for layer in layers:
            for part, value in zip(("key", "value"), present[layer]):
                graph.output(value, f"present.{layer}.{part}", FLOAT, cells)
        return graph

    def single(self, x: str) -> str:
        return self.graph.node("Cast", x, to=TensorProto.FLOAT)

    def linear(self, x: str, name: str, *parts: str) -> str:
        """x times the matrices of these parts, side by side: one product is faster than several."""
        weight = np.concatenate([self.tensors[f"{part}.weight"] for part in parts])
        return self.graph.node("MatMul", x, self.single(self.graph.constant(f"{name}.weight", weight.T)))

    def norm(self, x: str, name: str) -> str:
        """x / sqrt(mean(x²) + ε) · weight, in the nodes that onnxruntime makes one of."""
        graph = self.graph
        square = graph.node("Pow", x, graph.number("two", 2))
        mean = graph.node("ReduceMean", square, axes=[-1], keepdims=1)
        root = graph.node("Sqrt", graph.node("Add", mean, graph.number("epsilon", self.settings["rms_norm_eps"])))
        weight = self.tensors[f"{name}.weight"].astype(np.float32)
        return graph.node("Mul", graph.constant(f"{name}.weight", weight), graph.node("Div", x, root))

    def added_mask(self, tokens: str, mask: str) -> str:
        """[batch, 1, sequence · queries of a group, past + sequence]: 0 for a cell that is seen, MASKED for another."""
        graph = self.graph
        sequence, total = graph.dimension(tokens, 1), graph.dimension(mask, 1)
        zero, one = graph.integer(0), graph.integer(1)
        cells = graph.node("Range", zero, total, one)
        queries = graph.node("Range", graph.node("Sub", total, sequence), total, one)
        is_past = graph.node("LessOrEqual", cells, graph.node("Unsqueeze", queries, graph.integers(1)))
        is_token = graph.node("Unsqueeze", graph.node("Cast", mask, to=TensorProto.BOOL), graph.integers(1, 2))
        is_seen = graph.node("And", is_past, is_token)
        added = graph.node("Where", is_seen, graph.number("zero", 0), graph.number("masked", MASKED))
        return graph.node("Concat", *[added] * (self.heads // self.kv_heads), axis=2)

    def rotation(self, positions: str) -> tuple[str, str]:
        """Cosines and sines, [batch, 1, sequence, width]."""
        graph, half = self.graph, self.width // 2
        frequencies = self.settings["rope_theta"] ** -(np.arange(half, dtype=np.float64) / half)
        frequencies = graph.constant("frequencies", np.tile(frequencies, 2).astype(np.float32).reshape(1, 1, 1, -1))
        places = graph.node("Unsqueeze", self.single(positions), graph.integers(1, 3))
        angles = graph.node("Mul", places, frequencies)
        return graph.node("Cos", angles), graph.node("Sin", angles)

    def rotate(self, x: str, rotation: tuple[str, str]) -> str:
        """The first half of each head turns with the second."""
        graph, (cosines, sines) = self.graph, rotation
        halves = graph.constant("integers_halves", np.array([self.width // 2] * 2, np.int64))
        first, second = graph.node_with_outputs("Split", [x, halves], 2, axis=-1)
        turned = graph.node("Concat", graph.node("Neg", second), first, axis=-1)
        return graph.node("Add", graph.node("Mul", x, cosines), graph.node("Mul", turned, sines))

    def layer(self, x: str, name: str, mask: str, rotation: tuple[str, str], past: list[str]) -> tuple[str, list[str]]:
        attended, present = self.attention(self.norm(x, f"{name}.input_layernorm"), name, mask, rotation, past)
        x = self.graph.node("Add", x, attended)
        return self.graph.node("Add", x, self.mlp(self.norm(x, f"{name}.post_attention_layernorm"), name)), present

    def attention(self, x: str, name: str, mask: str, rotation: tuple[str, str], past: list[str]):
        graph, heads, kv_heads, width = self.graph, self.heads, self.kv_heads, self.width
        parts = [f"{name}.self_attn.{part}_proj" for part in ("q", "k", "v")]
        all_heads = graph.split_heads(self.linear(x, f"{name}.self_attn.qkv", *parts), heads + 2 * kv_heads)
        turned, value = self.parts(all_heads, "rotated", heads + kv_heads, kv_heads)
        query, key = self.parts(self.rotate(turned, rotation), "query", heads, kv_heads)
        key = graph.node("Concat", past[0], key, axis=2)
        value = graph.node("Concat", past[1], value, axis=2)
        # The queries that share a key are rows of one matrix, so that no key is repeated.
        query = graph.node("Mul", query, graph.number("scale", 1 / math.sqrt(width)))
        query = graph.node("Reshape", query, graph.integers(0, kv_heads, -1, width))
        attended = graph.node("MatMul", graph.attention_weights(query, key, mask), value)
        attended = graph.node("Reshape", attended, graph.integers(0, heads, -1, width))
        return self.linear(graph.join_heads(attended), f"{name}.o", f"{name}.self_attn.o_proj"), [key, value]

    def parts(self, x: str, name: str, first: int, second: int) -> list[str]:
        sizes = self.graph.constant(f"integers_{name}", np.array([first, second], np.int64))
        return self.graph.node_with_outputs("Split", [x, sizes], 2, axis=1)

    def mlp(self, x: str, name: str) -> str:
        graph, inner = self.graph, self.settings["intermediate_size"]
        both = self.linear(x, f"{name}.mlp.gate_up", f"{name}.mlp.gate_proj", f"{name}.mlp.up_proj")
        sizes = graph.constant("integers_mlp", np.array([inner, inner], np.int64))
        gate, up = graph.node_with_outputs("Split", [both, sizes], 2, axis=-1)
        gate = graph.node("Mul", gate, graph.node("Sigmoid", gate))
        return self.linear(graph.node("Mul", gate, up), f"{name}.down", f"{name}.mlp.down_proj")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, default=None)
    arguments = parser.parse_args()
    [source] = sorted(arguments.folder.glob("*.gguf"))
    reader = GGUFReader(source)
    settings = config(reader, None)
    if arguments.layers:
        settings["num_hidden_layers"] = arguments.layers
    tensors = weights(reader, settings["num_attention_heads"], settings["num_key_value_heads"])
    tensors = {name: value.astype(np.float16) for name, value in tensors}
    arguments.output.mkdir(parents=True, exist_ok=True)
    Decoder(settings, tensors).build().write_with_data(arguments.output / "model.onnx")
    for name, value in [("config", settings), ("tokenizer", tokenizer(reader)),
                        ("tokenizer_config", tokenizer_config(reader, settings)),
                        ("generation_config", generation_config(settings))]:
        text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        (arguments.output / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
