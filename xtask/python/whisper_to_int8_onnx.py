"""Converts a Whisper model as whisper_to_onnx.py does, with the decoders' weights in 8 bits.

Usage: whisper_to_int8_onnx.py FOLDER OUTPUT, with the files of whisper_to_onnx.py in FOLDER.

A decoder reads all its weights for each token, so that fewer bytes make it faster; the encoder computes much with few
weights and gains little, but its errors reach every token: it stays as it is. The weights use 7 of the 8 bits: the sum
of two products must fit 16 bits where a processor has no instruction for products of bytes (AVX2 without VNNI).
"""

import logging
import sys
import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from onnx_graph import write_model
from whisper_to_onnx import Weights, decoder, encoder, read_container, write_settings


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    weights = Weights(read_container(folder / "model.bin"))
    encoder(weights).write(output / "encoder_model.onnx")
    write_quantized(decoder(weights, has_past=False).model(), output / "decoder_model.onnx")
    write_quantized(decoder(weights, has_past=True).model(), output / "decoder_with_past_model.onnx")
    write_settings(weights, folder, output)


def write_quantized(model: onnx.ModelProto, path: Path) -> None:
    # It advises to fold constants and infer shapes first. Nothing here needs it.
    logging.disable(logging.WARNING)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        quantize_dynamic(
            model,
            file.name,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        write_model(onnx.load(file.name), path)


if __name__ == "__main__":
    main()
