"""Writes ONNX graphs node by node, the same bytes on every machine: no time, path, host name or counter of a run.

Patterns follow what onnxruntime's optimizer recognizes: `x @ W + b` as MatMul and Add, GELU as its formula with Erf, a
transposed key as a Transpose before the MatMul. Standard operators only, so that other engines can run the files too.
"""

import math
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

# The first version with LayerNormalization as one operator, which every engine in use knows.
OPSET = 17
# The version of the file format that came with OPSET.
IR_VERSION = 8

# Smaller constants stay in the model's own file.
EXTERNAL_BYTES_MIN = 1024
# Where constants may be mapped instead of read.
EXTERNAL_ALIGNMENT = 4096

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Graph:
    """A graph that grows. Every method that adds a node returns the name of its output."""

    def __init__(self, name: str):
        self.name = name
        self.nodes, self.inputs, self.outputs = [], [], []
        self.constants = {}
        self.node_count = 0

    def input(self, name: str, kind: int, shape: list) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: str, name: str, kind: int, shape: list) -> None:
        """Declares a node's output as an output of the graph. It is renamed: an Identity would copy it in every run."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if other == value else other for other in names]
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, name: str, array) -> str:
        """A tensor of the file. The same name again means the same tensor."""
        array = np.asarray(array, order="C")
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def integers(self, *numbers: int) -> str:
        return self.constant("integers_" + "_".join(map(str, numbers)), np.array(numbers, np.int64))

    def integer(self, number: int) -> str:
        return self.constant(f"integer_{number}", np.array(number, np.int64))

    def number(self, name: str, number: float) -> str:
        return self.constant(name, np.array(number, np.float32))

    def node(self, operator: str, *inputs: str, **attributes) -> str:
        return self.node_with_outputs(operator, inputs, 1, **attributes)[0]

    def node_with_outputs(self, operator: str, inputs, count: int, **attributes) -> list[str]:
        name = f"{operator}_{self.node_count}"
        self.node_count += 1
        outputs = [f"{name}_output_{index}" for index in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs

    def linear(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        """`x @ weight.T + bias`, with the weight as PyTorch stores it: [outputs, inputs]."""
        y = self.node("MatMul", x, self.constant(name + ".weight", weight.T))
        return y if bias is None else self.node("Add", self.constant(name + ".bias", bias), y)

    def layer_norm(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray, epsilon: float) -> str:
        scale, bias = self.constant(name + ".weight", weight), self.constant(name + ".bias", bias)
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def gelu(self, x: str) -> str:
        """x * (1 + erf(x / sqrt(2))) / 2 (Hendrycks and Gimpel 2016), the exact form."""
        erf = self.node("Erf", self.node("Div", x, self.number("sqrt_2", math.sqrt(2))))
        product = self.node("Mul", x, self.node("Add", erf, self.number("one", 1)))
        return self.node("Mul", product, self.number("half", 0.5))

    def dimension(self, x: str, axis: int) -> str:
        """The length of one axis, as a scalar."""
        return self.node("Gather", self.node("Shape", x), self.integer(axis), axis=0)

    def split_heads(self, x: str, heads: int) -> str:
        """[batch, length, heads * width] to [batch, heads, length, width]."""
        return self.node("Transpose", self.node("Reshape", x, self.integers(0, 0, heads, -1)), perm=[0, 2, 1, 3])

    def join_heads(self, x: str) -> str:
        """[batch, heads, length, width] to [batch, length, heads * width]."""
        return self.node("Reshape", self.node("Transpose", x, perm=[0, 2, 1, 3]), self.integers(0, 0, -1))

    def attention_weights(self, query: str, key: str, mask: str | None) -> str:
        """softmax(query @ key^T + mask); the query is scaled already."""
        scores = self.node("MatMul", query, self.node("Transpose", key, perm=[0, 1, 3, 2]))
        if mask is not None:
            scores = self.node("Add", scores, mask)
        return self.node("Softmax", scores, axis=-1)

    def model(self) -> ModelProto:
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, [self.constants[name] for name in sorted(self.constants)]
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="pajamas")
        checker.check_model(model, full_check=True)
        return model

    def write(self, path: Path) -> None:
        write_model(self.model(), path)

    def write_with_data(self, path: Path) -> None:
        """Puts large constants into a file beside the model, whose name Hugging Face's tools expect."""
        model = self.model()
        data = path.with_name(path.name + "_data")
        with data.open("wb") as file:
            for tensor in model.graph.initializer:
                if len(tensor.raw_data) < EXTERNAL_BYTES_MIN:
                    continue
                file.write(b"\0" * (-file.tell() % EXTERNAL_ALIGNMENT))
                for key, value in [("location", data.name), ("offset", file.tell()), ("length", len(tensor.raw_data))]:
                    tensor.external_data.add(key=key, value=str(value))
                file.write(tensor.raw_data)
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
        write_model(model, path)


def write_model(model: ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))
