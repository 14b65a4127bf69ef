"""Pictures, speech to text and text to speech: a running host beside the Python libraries for the same models.

Usage: modalities.py URL MODELS THREADS ROUNDS. MODELS is the folder of `cargo xtask models`; the host at URL serves nudenet,
whisper-tiny.en, whisper-tiny.en-int8 and piper-joe with THREADS threads. In each round everybody has a turn, in a new
order; the table shows medians. The host is asked over HTTP and decodes the files; so do the rivals, from memory.
"""

import concurrent.futures
import io
import sys
import time
import wave
from pathlib import Path

import contest
import numpy as np
import onnxruntime
from faster_whisper import WhisperModel
from contest import seconds
from PIL import Image
from piper import PiperVoice

TEXT = (
    "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. "
    "It is easy to tell the depth of a well. These days a chicken leg is a rare dish."
)
# Silence that the host puts between two of the four sentences, and the rival does not: nobody computes it.
SILENCE_S = 3 * 0.2
PICTURES_AT_ONCE = 8
# A whole number of batches.
FRAMES = 5 * PICTURES_AT_ONCE


class Detector:
    """The network in onnxruntime, with the least that makes boxes of a picture."""

    def __init__(self, path, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def boxes(self, files):
        tensor = np.stack([self.pixels(file) for file in files])
        output = self.session.run(None, {self.input: tensor})[0]
        return [self.best(rows) for rows in output]

    @staticmethod
    def pixels(file):
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        scale = 320 / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        canvas = Image.new("RGB", (320, 320), (114, 114, 114))
        canvas.paste(picture.resize(size, Image.BILINEAR), ((320 - size[0]) // 2, (320 - size[1]) // 2))
        return (np.asarray(canvas, dtype=np.float32) / 255).transpose(2, 0, 1)

    @staticmethod
    def best(rows):
        scores = rows[4:]
        kept = np.flatnonzero(scores.max(0) > 0.25)
        order = kept[np.argsort(-scores.max(0)[kept])]
        chosen = []
        for row in order:
            x, y, w, h = rows[:4, row]
            if all(overlap((x, y, w, h), other) < 0.45 for other in chosen):
                chosen.append((x, y, w, h))
        return chosen


def overlap(a, b):
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def sound_seconds(file):
    with wave.open(io.BytesIO(file)) as sound:
        return len(sound.readframes(1 << 30)) / sound.getsampwidth() / sound.getnchannels() / sound.getframerate()


def contests(host, models, threads):
    """What is measured: a name, the unit, whether more is better, and what each does."""
    picture = (models / "samples/astronaut.png").read_bytes()
    detector = Detector(models / "nudenet/320n.onnx", threads)
    fields = {"model": b"nudenet", "image": picture}

    def host_pictures():
        with concurrent.futures.ThreadPoolExecutor(PICTURES_AT_ONCE) as pool:
            list(pool.map(lambda _: host.form("/v1/images/detect", fields), range(FRAMES)))

    def rival_pictures():
        for _ in range(FRAMES // PICTURES_AT_ONCE):
            detector.boxes([picture] * PICTURES_AT_ONCE)

    yield "detect, one picture after the other", "ms", False, {
        "pajamas-host": lambda: 1000 / FRAMES * seconds(lambda: [host.form("/v1/images/detect", fields) for _ in range(FRAMES)]),
        "onnxruntime": lambda: 1000 / FRAMES * seconds(lambda: [detector.boxes([picture]) for _ in range(FRAMES)]),
    }
    yield f"detect, {PICTURES_AT_ONCE} at once", "pictures/s", True, {
        "pajamas-host": lambda: FRAMES / seconds(host_pictures),
        "onnxruntime": lambda: FRAMES / seconds(rival_pictures),
    }

    sound = (models / "samples/two_cities.wav").read_bytes()
    length = sound_seconds(sound)
    whisper = WhisperModel(str(models / "whisper-tiny-en-ct2"), device="cpu", compute_type="int8", cpu_threads=threads)

    def listen(model):
        form = {"model": model, "file": sound, "language": b"en"}
        return lambda: seconds(lambda: host.form("/v1/audio/transcriptions", form)) / length

    yield "transcribe 44 s, greedy", "of real time", False, {
        "pajamas-host": listen(b"whisper-tiny.en-int8"),
        "faster-whisper int8": lambda: seconds(lambda: list(whisper.transcribe(io.BytesIO(sound), beam_size=1, language="en")[0])) / length,
    }

    voice = PiperVoice.load(str(models / "piper-joe/en_US-joe-medium.onnx"))

    def rival_speech():
        samples = 0
        started = time.perf_counter()
        for chunk in voice.synthesize(TEXT):
            samples += len(chunk.audio_int16_bytes) // 2
        return (time.perf_counter() - started) / (samples / voice.config.sample_rate)

    def host_speech():
        started = time.perf_counter()
        answer = host.json("/v1/audio/speech", {"model": "piper-joe", "input": TEXT, "response_format": "wav"})
        elapsed = time.perf_counter() - started
        # The header of a stream does not tell its length.
        return elapsed / ((len(answer) - 44) / 2 / voice.config.sample_rate - SILENCE_S)

    yield "speak four sentences", "of real time", False, {"pajamas-host": host_speech, "piper-tts": rival_speech}


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    URL, MODELS, THREADS, ROUNDS = sys.argv[1:]
    contest.run(contests(contest.Host(URL), Path(MODELS), int(THREADS)), int(ROUNDS))
