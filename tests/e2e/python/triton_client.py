"""Drives a running host with tritonclient: health, metadata, inference as JSON and as binary data, errors."""

import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1].removeprefix("http://"))
# `any` takes every tensor and gives it back; `typed` declares what it takes.
ANY, TYPED = "any", "typed"
TYPES = {
    "BOOL": numpy.bool_, "INT8": numpy.int8, "INT16": numpy.int16, "INT32": numpy.int32, "INT64": numpy.int64,
    "UINT8": numpy.uint8, "UINT16": numpy.uint16, "UINT32": numpy.uint32, "UINT64": numpy.uint64,
    "FP16": numpy.float16, "FP32": numpy.float32, "FP64": numpy.float64,
}


def tensor(name, array, datatype, binary=True):
    value = triton.InferInput(name, list(array.shape), datatype)
    value.set_data_from_numpy(array, binary_data=binary)
    return value


def health():
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "pajamas-host" and "binary_tensor_data" in metadata["extensions"], metadata
    assert client.is_model_ready(ANY) and client.is_model_ready(ANY, "1")
    assert not client.is_model_ready("ghost")


def metadata():
    typed = client.get_model_metadata(TYPED)
    assert typed["name"] == TYPED and typed["platform"] == "echo" and typed["versions"] == ["1"], typed
    expected = [
        {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "mask", "datatype": "BOOL", "shape": [2]},
    ]
    assert typed["inputs"] == expected and typed["outputs"] == expected, typed


def every_type():
    for datatype, dtype in TYPES.items():
        array = numpy.array([[0, 1], [1, 100]]).astype(dtype)
        for binary in (True, False):
            if datatype == "FP16" and not binary:
                continue
            outputs = [triton.InferRequestedOutput("x", binary_data=binary)]
            answer = client.infer(ANY, [tensor("x", array, datatype, binary)], outputs=outputs)
            back = answer.as_numpy("x")
            assert back.dtype == dtype and (back == array).all(), (datatype, binary, back)
            assert answer.get_output("x")["datatype"] == datatype


def several_tensors():
    x = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    mask = numpy.array([True, False])
    inputs = [tensor("x", x, "FP32"), tensor("mask", mask, "BOOL", binary=False)]
    # Without outputs, the client asks for all of them as binary data.
    answer = client.infer(TYPED, inputs, request_id="seven")
    assert (answer.as_numpy("x") == x).all() and (answer.as_numpy("mask") == mask).all()
    assert answer.get_response()["id"] == "seven", answer.get_response()
    one = client.infer(TYPED, inputs, outputs=[triton.InferRequestedOutput("mask")], model_version="1")
    assert [output["name"] for output in one.get_response()["outputs"]] == ["mask"]
    large = numpy.random.default_rng(1).random((1000, 1000), dtype=numpy.float32)
    assert (client.infer(ANY, [tensor("x", large, "FP32")]).as_numpy("x") == large).all()
    empty = numpy.zeros((0, 4), dtype=numpy.int64)
    assert client.infer(ANY, [tensor("x", empty, "INT64")]).as_numpy("x").shape == (0, 4)


def errors():
    x = numpy.zeros((2, 4), dtype=numpy.float32)
    mask = tensor("mask", numpy.array([True, False]), "BOOL")
    text = numpy.array([b"a"], dtype=numpy.object_)
    cases = [
        (lambda: client.infer("ghost", [tensor("x", x, "FP32")]), "ghost"),
        (lambda: client.infer(TYPED, [tensor("x", x, "FP32"), mask]), '"x"'),
        (lambda: client.infer(TYPED, [mask]), '"x" is missing'),
        (lambda: client.infer(ANY, [tensor("x", text, "BYTES")]), "BYTES"),
        (lambda: client.infer(ANY, [tensor("x", x, "FP32")], model_version="2"), "version"),
        (lambda: client.infer(ANY, [tensor("x", x, "FP32")], outputs=[triton.InferRequestedOutput("y")]), '"y"'),
        (lambda: client.infer(ANY, [tensor("x", x, "FP32")], sequence_id=3), "sequence_id"),
        (lambda: client.infer(ANY, [tensor("x", x, "FP32")], request_compression_algorithm="gzip"), "compressed"),
        (lambda: client.get_model_metadata("ghost"), "ghost"),
    ]
    for call, named in cases:
        try:
            call()
        except InferenceServerException as error:
            assert named in error.message(), error
        else:
            raise AssertionError(f"an error that names {named} was expected")


for check in (health, metadata, every_type, several_tensors, errors):
    check()
print("all checks passed")
