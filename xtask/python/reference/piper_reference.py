"""Writes plugins/pipelines/testdata/piper.json: what Piper's own Python makes of some texts.

    python3 -m venv V && V/bin/pip install piper-tts==1.8.0 onnxruntime
    V/bin/python xtask/python/reference/piper_reference.py VOICE.onnx plugins/pipelines/testdata/piper.json

VOICE.onnx is en_US-joe-medium, which `cargo xtask models piper-joe` fetches. The scales of the noise are 0.
"""

import importlib.metadata
import json
import sys

from piper import PiperVoice, SynthesisConfig
from piper.phonemize_espeak import EspeakPhonemizer

# Every STEPth sample is kept: enough to see a sound that is shifted, scaled or another.
STEP = 97

TEXTS = [
    ("en-us", "Hello world. This is a test, a good one! Is it? Yes: it is; really"),
    ("en-us", "He said \"Hi.\" Then he left."),
    ("en-us", "Dr. Smith paid $3.50 (about 2%) -- or so... Right?"),
    ("en-us", "Mr. X. Y. went to the U.S.A. in 1999, e.g. by ship."),
    ("en-us", "First paragraph\n\nSecond paragraph.\n\nThird?\n\n"),
    ("en-us", "Wait... what?! No way!!! (Really.) Well – maybe — or not…"),
    ("en-us", "end. lower case, and www.example.com is a site. No. 5 is alive."),
    ("en-us", "The café serves naïve façades; 1,000.5 of them at 3:45pm."),
    ("en-us", "one two three four five six seven eight nine ten " * 24 + "end."),
    ("en-us", "..."),
    ("en-gb-x-rp", "The quick brown fox, they say, jumps over the lazy dog."),
    ("de", "Guten Morgen, wie geht es Ihnen? Das Software-Update ist fertig."),
    ("fr", "Bonjour ! Comment ça va ? « Très bien », dit-il ; le week-end fut bon."),
    ("es", "¿Qué tal? ¡Muy bien! El niño, dijo: mañana."),
    ("ru", "Привет, мир. Как дела?"),
    ("cmn", "你好。今天天气很好！你吃了吗？"),
    ("hi", "नमस्ते। आप कैसे हैं?"),
]

SPOKEN = [
    "Hello world. This is a test.",
    "The birch canoe slid on the smooth planks, and the sheet was glued to the dark blue background.",
]


def main(voice_file: str, out: str) -> None:
    phonemizer = EspeakPhonemizer()
    texts = [
        {"voice": voice, "text": text, "sentences": ["".join(s) for s in phonemizer.phonemize(voice, text)]}
        for voice, text in TEXTS
    ]
    voice = PiperVoice.load(voice_file)
    spoken = []
    for text in SPOKEN:
        for speed in (1.0, 2.0):
            config = SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0, length_scale=1.0 / speed)
            chunks = list(voice.synthesize(text, config))
            spoken.append({
                "text": text,
                "speed": speed,
                "ids": [list(chunk.phoneme_ids) for chunk in chunks],
                "lengths": [len(chunk.audio_float_array) for chunk in chunks],
                "samples": [[round(float(x), 5) for x in chunk.audio_float_array[::STEP]] for chunk in chunks],
            })
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("piper-tts", "onnxruntime"))
    document = {
        "source": f"xtask/python/reference/piper_reference.py, {versions}, voice en_US-joe-medium",
        "step": STEP,
        "texts": texts,
        "spoken": spoken,
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
