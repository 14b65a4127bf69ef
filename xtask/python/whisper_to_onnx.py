"""Converts a Whisper model of CTranslate2 into the ONNX files and settings that Hugging Face's Optimum exports.

Usage: whisper_to_onnx.py FOLDER OUTPUT, where FOLDER holds config.json, model.bin, tokenizer.json and silero_vad.onnx.

Beyond Optimum's layout, decoder_model.onnx also returns the weights of the attention to the sound, of which a pipeline
makes the times of words; and the voice activity detector Silero VAD lies beside it under its own name.

Sources: the container is that of CTranslate2 (python/ctranslate2/specs/model_spec.py, binary version 6); the network is
that of openai/whisper (whisper/model.py).
"""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np

from onnx_graph import FLOAT, INT64, Graph

BINARY_VERSION = 6
DTYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}

# PyTorch's default, which Whisper keeps.
LAYER_NORM_EPSILON = 1e-5
# Far below every score, and still finite after another is added to it.
MASKED = -1e9

# The tokens of the English vocabulary (openai/whisper, tokenizer.py); a model of this kind has no others.
ENGLISH_VOCABULARY_LEN = 51864
END_OF_TEXT, START_OF_TRANSCRIPT, START_OF_PREVIOUS, NO_TIMESTAMPS = 50256, 50257, 50360, 50362
# The first text may begin at most 1 s into the sound: 50 steps of 20 ms (Radford et al. 2022, 4.5).
INITIAL_TIMESTAMP_MAX = 50


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    weights = Weights(read_container(folder / "model.bin"))
    encoder(weights).write(output / "encoder_model.onnx")
    decoder(weights, has_past=False).write(output / "decoder_model.onnx")
    decoder(weights, has_past=True).write(output / "decoder_with_past_model.onnx")
    write_settings(weights, folder, output)


def write_settings(weights: "Weights", folder: Path, output: Path) -> None:
    """All that is no network of Whisper's."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(output / "config.json", model_config(weights))
    write_json(output / "generation_config.json", generation_config(settings))
    write_json(output / "preprocessor_config.json", preprocessor_config(weights))
    for name in ("tokenizer.json", "silero_vad.onnx"):
        shutil.copyfile(folder / name, output / name)


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_container(path: Path) -> dict:
    """All tensors by name, aliases too; half precision becomes single, which is exact."""
    data, offset = memoryview(path.read_bytes()), 0

    def number(code: str) -> int:
        nonlocal offset
        offset += struct.calcsize(code)
        return struct.unpack_from("<" + code, data, offset - struct.calcsize(code))[0]

    def text() -> str:
        nonlocal offset
        length = number("H")
        offset += length
        return bytes(data[offset - length : offset]).rstrip(b"\0").decode()

    version, spec = number("I"), text()
    if (version, spec) != (BINARY_VERSION, "WhisperSpec"):
        sys.exit(f"{path}: expected WhisperSpec in version {BINARY_VERSION}, found {spec} in version {version}")
    number("I")  # The specification's revision: what matters is checked tensor by tensor.
    tensors = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype, length = DTYPES[number("B")], number("I")
        array = np.frombuffer(data[offset : offset + length], dtype).reshape(shape)
        tensors[name] = array.astype(np.float32) if dtype == "<f2" else array
        offset += length
    for _ in range(number("I")):
        alias, name = text(), text()
        tensors[alias] = tensors[name]
    return tensors


class Weights:
    """The tensors, and the sizes that follow from them."""

    def __init__(self, tensors: dict):
        self.tensors = tensors
        self.heads = int(tensors["encoder/num_heads"])
        self.width, self.mel_bins = tensors["encoder/conv1/weight"].shape[:2]
        self.sound_len = len(tensors["encoder/position_encodings/encodings"])
        self.text_len = len(tensors["decoder/position_encodings/encodings"])
        self.vocabulary_len = len(tensors["decoder/embeddings/weight"])
        self.encoder_layers = self.count("encoder")
        self.decoder_layers = self.count("decoder")
        self.hidden_width = len(tensors["encoder/layer_0/ffn/linear_0/weight"])
        if self.vocabulary_len != ENGLISH_VOCABULARY_LEN:
            sys.exit(f"expected {ENGLISH_VOCABULARY_LEN} tokens (English), found {self.vocabulary_len}")

    def count(self, part: str) -> int:
        return len({name.split("/")[1] for name in self.tensors if name.startswith(f"{part}/layer_") and
                    not name.startswith(f"{part}/layer_norm")})

    def pair(self, name: str) -> tuple:
        return self.tensors[name + "/weight"], self.tensors[name + "/bias"]

    def scaled_query(self, name: str) -> tuple:
        """A projection whose first `width` rows make the query: 1 / sqrt(head width) goes into them."""
        weight, bias = (array.copy() for array in self.pair(name))
        scale = np.float32((self.width // self.heads) ** -0.5)
        weight[: self.width] *= scale
        bias[: self.width] *= scale
        return weight, bias


class Block:
    """Adds the parts of one transformer layer to a graph."""

    def __init__(self, graph: Graph, weights: Weights, layer: str):
        self.graph, self.weights, self.layer = graph, weights, layer

    def linear(self, x: str, name: str) -> str:
        return self.graph.linear(x, f"{self.layer}/{name}", *self.weights.pair(f"{self.layer}/{name}"))

    def norm(self, x: str, name: str) -> str:
        return layer_norm(self.graph, self.weights, x, f"{self.layer}/{name}/layer_norm")

    def query_key_value(self, x: str) -> list:
        """Self-attention's three, each [batch, heads, length, head width], out of one product."""
        name = f"{self.layer}/self_attention/linear_0"
        joined = self.graph.linear(x, name, *self.weights.scaled_query(name))
        parts = self.graph.node_with_outputs("Split", [joined], 3, axis=-1)
        return [self.graph.split_heads(part, self.weights.heads) for part in parts]

    def sound_query(self, x: str) -> str:
        name = f"{self.layer}/attention/linear_0"
        return self.graph.split_heads(
            self.graph.linear(x, name, *self.weights.scaled_query(name)), self.weights.heads
        )

    def sound_key_value(self, sound: str) -> list:
        joined = self.linear(sound, "attention/linear_1")
        parts = self.graph.node_with_outputs("Split", [joined], 2, axis=-1)
        return [self.graph.split_heads(part, self.weights.heads) for part in parts]

    def attend(self, weights: str, value: str, projection: str) -> str:
        return self.linear(self.graph.join_heads(self.graph.node("MatMul", weights, value)), projection)

    def feed_forward(self, x: str) -> str:
        hidden = self.graph.gelu(self.linear(self.norm(x, "ffn"), "ffn/linear_0"))
        return self.graph.node("Add", x, self.linear(hidden, "ffn/linear_1"))


def layer_norm(graph: Graph, weights: Weights, x: str, name: str) -> str:
    scale, bias = weights.tensors[name + "/gamma"], weights.tensors[name + "/beta"]
    return graph.layer_norm(x, name, scale, bias, LAYER_NORM_EPSILON)


def encoder(weights: Weights) -> Graph:
    graph = Graph("whisper_encoder")
    x = graph.input("input_features", FLOAT, ["batch_size", weights.mel_bins, 2 * weights.sound_len])
    for name, stride in (("encoder/conv1", 1), ("encoder/conv2", 2)):
        weight, bias = weights.pair(name)
        weight, bias = graph.constant(name + ".weight", weight), graph.constant(name + ".bias", bias)
        x = graph.gelu(graph.node("Conv", x, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[stride]))
    positions = "encoder/position_encodings/encodings"
    x = graph.node("Transpose", x, perm=[0, 2, 1])
    x = graph.node("Add", x, graph.constant(positions, weights.tensors[positions]))
    for layer in range(weights.encoder_layers):
        block = Block(graph, weights, f"encoder/layer_{layer}")
        query, key, value = block.query_key_value(block.norm(x, "self_attention"))
        attention = graph.attention_weights(query, key, None)
        x = graph.node("Add", x, block.attend(attention, value, "self_attention/linear_1"))
        x = block.feed_forward(x)
    x = layer_norm(graph, weights, x, "encoder/layer_norm")
    graph.output(x, "last_hidden_state", FLOAT, ["batch_size", weights.sound_len, weights.width])
    return graph


def decoder(weights: Weights, has_past: bool) -> Graph:
    """One step over any number of tokens. With a past, keys and values of the sound come from there."""
    graph = Graph("whisper_decoder_with_past" if has_past else "whisper_decoder")
    heads, head_width = weights.heads, weights.width // weights.heads
    tokens = graph.input("input_ids", INT64, ["batch_size", "sequence_length"])
    past, sound = [], None
    cache_shape = ["batch_size", heads, "past_sequence_length", head_width]
    sound_shape = ["batch_size", heads, weights.sound_len, head_width]
    if has_past:
        for layer in range(weights.decoder_layers):
            parts = (("decoder", cache_shape), ("encoder", sound_shape))
            past.append({
                (part, kind): graph.input(f"past_key_values.{layer}.{part}.{kind}", FLOAT, shape)
                for part, shape in parts
                for kind in ("key", "value")
            })
    else:
        sound = graph.input("encoder_hidden_states", FLOAT, ["batch_size", weights.sound_len, weights.width])

    past_len = graph.dimension(past[0]["decoder", "key"], 2) if has_past else graph.integer(0)
    total_len = graph.node("Add", past_len, graph.dimension(tokens, 1))
    positions = graph.node("Range", past_len, total_len, graph.integer(1))
    mask = causal_mask(graph, positions, total_len)
    x = embed(graph, weights, tokens, positions)
    presents = []
    for layer in range(weights.decoder_layers):
        block = Block(graph, weights, f"decoder/layer_{layer}")
        query, key, value = block.query_key_value(block.norm(x, "self_attention"))
        if has_past:
            key = graph.node("Concat", past[layer]["decoder", "key"], key, axis=2)
            value = graph.node("Concat", past[layer]["decoder", "value"], value, axis=2)
        attention = graph.attention_weights(query, key, mask)
        x = graph.node("Add", x, block.attend(attention, value, "self_attention/linear_1"))

        query = block.sound_query(block.norm(x, "attention"))
        if has_past:
            sound_key, sound_value = past[layer]["encoder", "key"], past[layer]["encoder", "value"]
        else:
            sound_key, sound_value = block.sound_key_value(sound)
        attention = graph.attention_weights(query, sound_key, None)
        x = graph.node("Add", x, block.attend(attention, sound_value, "attention/linear_2"))
        x = block.feed_forward(x)
        presents.append({"key": key, "value": value, "sound_key": sound_key, "sound_value": sound_value,
                         "attention": attention})
    x = layer_norm(graph, weights, x, "decoder/layer_norm")

    graph.output(logits(graph, weights, x), "logits", FLOAT,
                 ["batch_size", "sequence_length", weights.vocabulary_len])
    present_shape = ["batch_size", heads, "total_sequence_length", head_width]
    for layer, present in enumerate(presents):
        graph.output(present["key"], f"present.{layer}.decoder.key", FLOAT, present_shape)
        graph.output(present["value"], f"present.{layer}.decoder.value", FLOAT, present_shape)
        if not has_past:
            graph.output(present["sound_key"], f"present.{layer}.encoder.key", FLOAT, sound_shape)
            graph.output(present["sound_value"], f"present.{layer}.encoder.value", FLOAT, sound_shape)
            graph.output(present["attention"], f"cross_attentions.{layer}", FLOAT,
                         ["batch_size", heads, "sequence_length", weights.sound_len])
    return graph


def causal_mask(graph: Graph, positions: str, total_len: str) -> str:
    """[new tokens, all tokens]: 0 where a token may look, far below 0 where the other one comes after it."""
    keys = graph.node("Range", graph.integer(0), total_len, graph.integer(1))
    is_later = graph.node("Greater", keys, graph.node("Unsqueeze", positions, graph.integers(1)))
    return graph.node("Where", is_later, graph.number("masked", MASKED), graph.number("zero", 0))


def embed(graph: Graph, weights: Weights, tokens: str, positions: str) -> str:
    words, places = "decoder/embeddings/weight", "decoder/position_encodings/encodings"
    word = graph.node("Gather", graph.constant(words, weights.tensors[words]), tokens, axis=0)
    place = graph.node("Gather", graph.constant(places, weights.tensors[places]), positions, axis=0)
    return graph.node("Add", word, place)


def logits(graph: Graph, weights: Weights, x: str) -> str:
    """The product with the embeddings, which are in the file once: Gemm takes them as they lie."""
    words = "decoder/embeddings/weight"
    rows = graph.node("Reshape", x, graph.integers(-1, weights.width))
    scores = graph.node("Gemm", rows, graph.constant(words, weights.tensors[words]), transB=1)
    # The first two dimensions are those of the hidden states, so that no shape is written down here.
    shape = graph.node("Concat", graph.node("Slice", graph.node("Shape", x), graph.integers(0), graph.integers(2)),
                       graph.integers(-1), axis=0)
    return graph.node("Reshape", scores, shape)


def model_config(weights: Weights) -> dict:
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "bos_token_id": START_OF_TRANSCRIPT,
        "d_model": weights.width,
        "decoder_attention_heads": weights.heads,
        "decoder_ffn_dim": weights.hidden_width,
        "decoder_layers": weights.decoder_layers,
        "decoder_start_token_id": START_OF_TRANSCRIPT,
        "encoder_attention_heads": weights.heads,
        "encoder_ffn_dim": weights.hidden_width,
        "encoder_layers": weights.encoder_layers,
        "eos_token_id": END_OF_TEXT,
        "is_encoder_decoder": True,
        "max_source_positions": weights.sound_len,
        "max_target_positions": weights.text_len,
        "num_hidden_layers": weights.encoder_layers,
        "num_mel_bins": weights.mel_bins,
        "pad_token_id": END_OF_TEXT,
        "scale_embedding": False,
        "vocab_size": weights.vocabulary_len,
    }


def generation_config(settings: dict) -> dict:
    return {
        "alignment_heads": settings["alignment_heads"],
        "begin_suppress_tokens": settings["suppress_ids_begin"],
        "bos_token_id": START_OF_TRANSCRIPT,
        "decoder_start_token_id": START_OF_TRANSCRIPT,
        "eos_token_id": END_OF_TEXT,
        "is_multilingual": False,
        "max_initial_timestamp_index": INITIAL_TIMESTAMP_MAX,
        "max_length": 448,
        "no_timestamps_token_id": NO_TIMESTAMPS,
        "pad_token_id": END_OF_TEXT,
        "prev_sot_token_id": START_OF_PREVIOUS,
        "return_timestamps": False,
        "suppress_tokens": settings["suppress_ids"],
    }


def preprocessor_config(weights: Weights) -> dict:
    """The sound's way into the network (openai/whisper, audio.py)."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": weights.mel_bins,
        "sampling_rate": 16000,
        "n_fft": 400,
        "hop_length": 160,
        "chunk_length": 30,
        "n_samples": 480000,
        "nb_max_frames": 2 * weights.sound_len,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


if __name__ == "__main__":
    main()
