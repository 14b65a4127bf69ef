"""Makes the CoreML models of the tests, each of a few kilobytes, with Apple's own tool (it converts on Linux too).

    pip install coremltools==9.0 && python make_packages.py

The results are in the repository beside this file; the tool writes identifiers and a date that differ each time.
"""

import pathlib
import shutil
import tempfile

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import get_new_symbol, types
from coremltools.models import MLModel, datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from coremltools.models.pipeline import PipelineClassifier

HERE = pathlib.Path(__file__).parent


def save(model, name):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    model.save(str(path))


def classifier():
    """A program that takes a picture and gives the probabilities of four classes."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 16, 16))])
    def program(image):
        mean = mb.reduce_mean(x=image, axes=[2, 3], keep_dims=False)
        weight = np.eye(4, 3, dtype=np.float32)
        scores = mb.linear(x=mean, weight=weight, bias=np.zeros(4, dtype=np.float32))
        return mb.softmax(x=scores, axis=-1, name="probabilities")

    model = ct.convert(
        program,
        inputs=[ct.ImageType("image", shape=(1, 3, 16, 16), scale=1 / 255)],
        classifier_config=ct.ClassifierConfig(["red", "green", "blue", "it's none"]),
        minimum_deployment_target=ct.target.macOS13,
    )
    model.author = "pajamas-host"
    model.license = "MIT"
    model.version = "2.1"
    model.short_description = "Which colour a picture has most of."
    model.user_defined_metadata["trained_on"] = "nothing"
    save(model, "classifier.mlpackage")


def encoder():
    """A program that takes any number of token ids. Its outputs have no shape but in the program."""

    length = get_new_symbol()

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, length), dtype=types.int32)])
    def program(input_ids):
        table = np.arange(64, dtype=np.float32).reshape(16, 4)
        tokens = mb.gather(x=table, indices=input_ids, axis=0, name="last_hidden_state")
        return tokens, mb.reduce_mean(x=tokens, axes=[1], keep_dims=False, name="pooled")

    model = ct.convert(
        program,
        inputs=[ct.TensorType("input_ids", shape=(1, ct.RangeDim(1, 128, default=8)), dtype=np.int32)],
        minimum_deployment_target=ct.target.macOS13,
    )
    save(model, "encoder.mlpackage")


def counter():
    """A program that adds up what it is given, in a state."""

    @mb.program(
        input_specs=[mb.TensorSpec(shape=(1, 4)), mb.StateTensorSpec((1, 4), dtype=types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x, total):
        sum_ = mb.add(x=mb.read_state(input=total), y=mb.cast(x=x, dtype="fp16"))
        mb.coreml_update_state(state=total, value=sum_)
        return mb.identity(x=sum_, name="sum")

    save(ct.convert(program, minimum_deployment_target=ct.target.iOS18), "counter.mlpackage")


def two_functions():
    """A package of two functions."""

    def scale(by):
        @mb.program(input_specs=[mb.TensorSpec(shape=(1, 4))], opset_version=ct.target.iOS18)
        def program(x):
            return mb.mul(x=x, y=np.float32(by), name="y")

        return ct.convert(program, minimum_deployment_target=ct.target.iOS18)

    with tempfile.TemporaryDirectory() as folder:
        functions = ct.utils.MultiFunctionDescriptor()
        for name, by in [("double", 2), ("triple", 3)]:
            path = f"{folder}/{name}.mlpackage"
            scale(by).save(path)
            functions.add_function(path, src_function_name="main", target_function_name=name)
        functions.default_function_name = "triple"
        path = HERE / "functions.mlpackage"
        shutil.rmtree(path, ignore_errors=True)
        ct.utils.save_multifunction(functions, str(path))


def old_classifier():
    """A neural network of the format before programs, alone and in a pipeline."""

    inputs = [("x", datatypes.Array(3))]
    builder = NeuralNetworkBuilder(inputs, [("p", datatypes.Array(2))], mode="classifier")
    builder.add_inner_product("dense", np.ones((2, 3)), np.zeros(2), 3, 2, True, "x", "s")
    builder.add_softmax("softmax", "s", "p")
    builder.set_class_labels([7, 9], predicted_feature_name="best", prediction_blob="p")
    network = MLModel(builder.spec)
    save(network, "network.mlmodel")
    outputs = ["best", "p"]
    pipeline = PipelineClassifier(inputs, [7, 9], outputs)
    pipeline.add_model(network)
    pipeline.set_training_input(inputs)
    save(MLModel(pipeline.spec), "pipeline.mlmodel")


if __name__ == "__main__":
    for make in (classifier, encoder, counter, two_functions, old_classifier):
        make()
    for weights in HERE.glob("*.mlpackage/Data/com.apple.CoreML/weights"):
        if not any(weights.iterdir()):
            (weights / ".gitkeep").write_text("Git keeps no empty folders.\n")
