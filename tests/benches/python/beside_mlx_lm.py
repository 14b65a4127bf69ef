"""One stream of text: a running host with the plugin mlx beside mlx_lm, on the same checkpoint.

Usage: beside_mlx_lm.py URL MODELS ROUNDS. MODELS is the folder of `cargo xtask models`; the host at URL serves smollm2-mlx. In each round
both have a turn, in a new order; the table shows medians. Every prompt is used once; what the template puts before them is
the same, and the host reuses it. The packed checkpoint is left out: on a CPU, mlx_lm needs more than 10 s for one of its tokens.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import contest
from mlx_lm import load, stream_generate
from mlx_lm.sample_utils import make_sampler

MODEL = "smollm2-mlx"
TOKENS = 32
NUMBERS = itertools.count(1)


def messages():
    text = f"Note {next(NUMBERS)}. Tell me in a few sentences how bread is made, from the grain to the loaf."
    return [{"role": "user", "content": text}]


def host_stream(host):
    def stream(tokens):
        body = {"model": MODEL, "messages": messages(), "max_tokens": tokens, "temperature": 0, "stream": True}
        finish = None
        for line in host.open("/v1/chat/completions", json.dumps(body).encode(), "application/json"):
            if not line.startswith(b"data: {"):
                continue
            choice = json.loads(line[6:])["choices"][0]
            finish = choice["finish_reason"] or finish
            if choice["delta"].get("content"):
                yield
        assert finish == "length", finish

    return stream


def rival_stream(folder):
    model, tokenizer = load(str(folder))

    def stream(tokens):
        prompt = tokenizer.apply_chat_template(messages(), add_generation_prompt=True)
        finish = None
        for piece in stream_generate(model, tokenizer, prompt, max_tokens=tokens, sampler=make_sampler(temp=0)):
            finish = piece.finish_reason
            yield
        assert finish == "length", finish

    return stream


def tokens_per_s(stream):
    times = [time.perf_counter() for _ in stream(TOKENS)]
    return (TOKENS - 1) / (times[-1] - times[0])


def contests(host, models):
    sides = {"pajamas-host": host_stream(host), "mlx_lm": rival_stream(models / MODEL)}
    yield "generate, one stream", "tokens/s", True, {
        name: lambda stream=stream: tokens_per_s(stream) for name, stream in sides.items()
    }
    yield "first token", "ms", False, {
        name: lambda stream=stream: 1000 * contest.seconds(lambda: list(stream(1))) for name, stream in sides.items()
    }


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    URL, MODELS, ROUNDS = sys.argv[1:]
    contest.run(contests(contest.Host(URL), Path(MODELS)), int(ROUNDS))
