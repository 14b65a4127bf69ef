"""What mlx_lm makes of the two SmolLM2 checkpoints of `cargo xtask models`: printed, and kept in smollm2.json.

    pip install "mlx[cpu]==0.32.2" mlx-lm==0.32.2
    python smollm2.py FOLDER_OF_MODELS
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache

QUESTIONS = ["Name the capital of France.", "Count from one to ten.", "Why is the sky blue? One sentence."]
TEXT = (
    "The river begins high in the mountains, where snow lies until the end of June. In spring it is loud and brown, and "
    "nobody crosses it. In summer the children of the village build dams out of stones, and in the evening the water takes "
    "them away again. My grandmother used to say that a river is the only thing which leaves every day and is still there in "
    "the morning. She was born in a house beside the old bridge, and she knew the name of every family on both banks."
)
NEW_TOKENS = 24


def answer(model, prompt):
    cache, tokens, rows = make_prompt_cache(model), [], list(prompt)
    while len(tokens) < NEW_TOKENS:
        token = int(mx.argmax(model(mx.array([rows]), cache=cache)[0, -1]))
        if token == 2:
            break
        tokens.append(token)
        rows = [token]
    return tokens


def perplexity(model, tokens):
    logits = model(mx.array([tokens[:-1]]))[0]
    return float(mx.exp(nn.losses.cross_entropy(logits, mx.array(tokens[1:])).mean()))


def main(models):
    results = {"text": TEXT, "questions": QUESTIONS}
    for name in ["smollm2-mlx", "smollm2-mlx-4bit"]:
        model, tokenizer = load(str(Path(models) / name))
        # As the plugin computes on the CPU: in 32-bit floats, with packed matrices unpacked.
        if name.endswith("4bit"):
            unpack(model)
        model.set_dtype(mx.float32)
        prompts = [
            tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
            for question in QUESTIONS
        ]
        results[name] = {
            "prompts": prompts,
            "answers": [answer(model, prompt) for prompt in prompts],
            "perplexity": perplexity(model, tokenizer.encode(TEXT)),
        }
        print(name, results[name]["perplexity"], [tokenizer.decode(tokens) for tokens in results[name]["answers"]])
    (Path(__file__).parent / "smollm2.json").write_text(json.dumps(results, indent=1) + "\n")


def unpack(model):
    """Replaces quantised layers by whole ones with the same values."""

    def whole(layer):
        if not isinstance(layer, (nn.QuantizedLinear, nn.QuantizedEmbedding)):
            return layer
        weight = mx.dequantize(
            layer.weight.astype(mx.uint32),
            layer.scales.astype(mx.float32),
            layer.biases.astype(mx.float32),
            layer.group_size,
            layer.bits,
        )
        if isinstance(layer, nn.QuantizedEmbedding):
            new = nn.Embedding(*weight.shape)
        else:
            new = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        new.weight = weight
        return new

    leaves = {name: whole(layer) for name, layer in model.named_modules()}
    model.update_modules(
        tree_unflatten([(name, layer) for name, layer in leaves.items() if isinstance(layer, (nn.Linear, nn.Embedding))])
    )


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    main(sys.argv[1])
