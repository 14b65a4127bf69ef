"""Makes the files beside it: one small picture and one short sound in every kind that the host reads.

Needs pillow, numpy, soundfile and imageio-ffmpeg. The tests compute what each file must decode to, so nothing else is kept.
"""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
from PIL import Image

HERE = Path(__file__).parent
WIDTH, HEIGHT = 24, 16


def pixels():
    """Red grows to the right, green downwards, blue is 64."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return np.stack([x * 10, y * 15, np.full_like(x, 64)], -1).astype(np.uint8)


def pictures():
    rgb = Image.fromarray(pixels())
    rgb.save(HERE / "rgb.png")
    rgb.save(HERE / "rgb.bmp")
    rgb.save(HERE / "rgb.gif")
    rgb.save(HERE / "lossless.webp", lossless=True)
    rgb.save(HERE / "lossy.webp", quality=95)
    rgb.save(HERE / "baseline.jpg", quality=97, subsampling=0)
    rgb.save(HERE / "progressive.jpg", quality=97, subsampling=0, progressive=True)
    rgb.convert("CMYK").save(HERE / "cmyk.jpg", quality=97)
    rgb.quantize(256).save(HERE / "palette.png")
    rgb.convert("L").save(HERE / "grey.png")
    rgb.convert("L").save(HERE / "grey.jpg", quality=97)
    Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257).save(HERE / "grey16.png")
    # The left half is transparent, over red.
    rgba = np.dstack([pixels(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    rgba[:, : WIDTH // 2] = [255, 0, 0, 0]
    Image.fromarray(rgba).save(HERE / "alpha.png")
    Image.fromarray(rgba).save(HERE / "alpha.webp", lossless=True)
    # For tests of detection: something red on black.
    square = np.zeros((48, 64, 3), np.uint8)
    square[20:40, 10:30] = [200, 20, 0]
    Image.fromarray(square).save(HERE / "square.png")
    # Two pictures, of which the first is the usual one.
    black = Image.new("RGB", (WIDTH, HEIGHT))
    rgb.save(HERE / "animated.gif", save_all=True, append_images=[black], duration=100)
    rgb.save(HERE / "animated.webp", save_all=True, append_images=[black], duration=100, lossless=True)
    # Stored so that the EXIF orientation gives the usual picture.
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = rgb.transpose(turn)
        stored.save(HERE / f"orientation{orientation}.jpg", quality=97, subsampling=0, exif=exif)


def sounds():
    def tone(rate, channels=1, seconds=0.5):
        """440 Hz, half as loud as possible, in every channel."""
        wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
        return np.repeat(wave[:, None], channels, 1)

    for subtype in ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "ULAW"]:
        soundfile.write(HERE / f"{subtype.lower()}.wav", tone(8000, seconds=0.25), 8000, subtype)
    soundfile.write(HERE / "stereo.flac", tone(44100, 2), 44100)
    source = HERE / "source.wav"
    soundfile.write(source, tone(44100, 2), 44100, "PCM_16")
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-i", source, "-bitexact"]
    outputs = {
        "tone.mp3": ["-c:a", "libmp3lame", "-b:a", "64k"],
        "vorbis.ogg": ["-c:a", "libvorbis", "-q:a", "2"],
        "opus.ogg": ["-c:a", "libopus", "-b:a", "48k"],
        "mono.opus": ["-c:a", "libopus", "-b:a", "24k", "-ac", "1"],
        "opus.webm": ["-c:a", "libopus", "-b:a", "48k"],
        "aac.m4a": ["-c:a", "aac", "-b:a", "64k"],
        "aac.aac": ["-c:a", "aac", "-b:a", "64k"],
    }
    for name, options in outputs.items():
        subprocess.run([*ffmpeg, *options, HERE / name], check=True)
    source.unlink()


pictures()
sounds()
