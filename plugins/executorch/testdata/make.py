"""Makes the test programs and what PyTorch computes for them: see README.md of the plugin for how to run it.

Every `NAME.pte` has a `NAME.json` beside it: a list of cases, each with the inputs and outputs of one run.
"""

import json
import pathlib

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch.export import Dim, export

HERE = pathlib.Path(__file__).resolve().parent


class AddMul(torch.nn.Module):
    def forward(self, x, y):
        return x + y, x * y


class Conv(torch.nn.Module):
    """A small image network: its rows are independent of each other."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.last = torch.nn.Linear(4, 5)

    def forward(self, x):
        x = torch.nn.functional.relu(self.first(x))
        return self.last(x.mean(dim=(2, 3)))


class Types(torch.nn.Module):
    def forward(self, whole, flags, half, double):
        return whole * 2 + 1, torch.logical_not(flags), half + half, double * 0.5, whole.to(torch.int32)


class Methods(torch.nn.Module):
    def forward(self, x):
        return x * 2.0

    def negate(self, x):
        return -x


class Colours(torch.nn.Module):
    """A classifier of pictures: how red, green and blue they are."""

    def forward(self, images):
        return images.mean(dim=(2, 3)) * 10.0


class ChannelsLast(torch.nn.Module):
    """Its picture lies in memory pixel by pixel."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


class Counter(torch.nn.Module):
    """It counts its runs, in a buffer that outlives them."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return x + self.count


class Scalar(torch.nn.Module):
    def forward(self, x, factor: int):
        return x * factor


def tensor(value):
    return {
        "dtype": str(value.dtype).removeprefix("torch."),
        "shape": list(value.shape),
        "data": value.flatten().tolist(),
    }


def write(name, programs, cases=(), delegate=False, constants=None):
    """Writes a program of one or more methods, and the cases of its method `forward`."""
    partitioner = [XnnpackPartitioner()] if delegate else None
    edge = to_edge_transform_and_lower(programs, partitioner=partitioner, constant_methods=constants)
    (HERE / f"{name}.pte").write_bytes(edge.to_executorch().buffer)
    module = programs["forward"].module() if isinstance(programs, dict) else programs.module()
    recorded = []
    for inputs in cases:
        outputs = module(*inputs)
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        recorded.append({"inputs": [tensor(t) for t in inputs], "outputs": [tensor(t) for t in outputs]})
    if recorded:
        (HERE / f"{name}.json").write_text(json.dumps(recorded) + "\n")
    print(name, (HERE / f"{name}.pte").stat().st_size, "bytes")


def named(module, name):
    """The module with another of its methods as `forward`."""

    class Named(torch.nn.Module):
        def forward(self, *inputs):
            return getattr(module, name)(*inputs)

    return Named().eval()


def main():
    torch.manual_seed(1)
    pair = (torch.randn(2, 3), torch.randn(2, 3))
    write("add_mul", export(AddMul().eval(), pair), [pair])

    conv = Conv().eval()
    pictures = [(torch.randn(rows, 3, 8, 8),) for rows in (1, 2, 8)]
    rows = {"x": {0: Dim("rows", min=1, max=8)}}
    exported = export(conv, pictures[1], dynamic_shapes=rows)
    write("conv_xnnpack", exported, pictures, delegate=True)
    write("conv_portable", exported, pictures)

    types = (
        torch.tensor([-(2**40), 0, 7, 2**40]),
        torch.tensor([True, False, True]),
        torch.tensor([0.5, -1.25], dtype=torch.half),
        torch.tensor([[1e-300, 3.0]], dtype=torch.double),
    )
    write("types", export(Types().eval(), types), [types])

    one = (torch.randn(3),)
    methods = Methods()
    programs = {name: export(named(methods, name), one) for name in ("forward", "negate")}
    write("methods", programs, [one], constants={"get_max_seq_len": 128, "version": "3"})

    colours = (torch.rand(2, 3, 16, 16),)
    rows = {"images": {0: Dim("rows", min=1, max=8)}}
    facts = {
        "task": "classify",
        "names": "['red', 'green', 'blue']",
        "input_names": "images",
        "output_names": "scores",
    }
    exported = export(Colours().eval(), colours, dynamic_shapes=rows)
    write("colours", exported, [colours], delegate=True, constants=facts)

    picture = (torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last),)
    write("channels_last", export(ChannelsLast().eval().to(memory_format=torch.channels_last), picture), [picture])

    write("counter", export(Counter().eval(), (torch.zeros(1),)))
    write("scalar", export(Scalar().eval(), (torch.ones(2), 3)))


if __name__ == "__main__":
    main()
