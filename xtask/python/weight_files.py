"""Reads files of weights without the framework that wrote them."""

import collections
import json
import pickle
import struct
import sys
from pathlib import Path

import numpy as np

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


def read_safetensors(path: Path):
    """Yields (name, array) in file order. Format: u64 header length, JSON header, data."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    header_len = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + header_len].tobytes())
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        if entry["dtype"] not in ("F32", "I64"):
            sys.exit(f"{path}: expected the tensor {name} as F32 or I64, found {entry['dtype']}")
        begin, end = (8 + header_len + offset for offset in entry["data_offsets"])
        yield name, data[begin:end].view("<f4" if entry["dtype"] == "F32" else "<i8").reshape(entry["shape"])


def read_torch(path: Path) -> dict:
    """The tensors by name of a file of `torch.save` as it was before PyTorch 1.6 (torch/serialization.py, _legacy_load).

    Format: pickles of a magic number, a version, facts about the machine, the dictionary of tensors and the list of
    storages; then each storage as a u64 count and its elements.
    """
    with path.open("rb") as file:
        if pickle_of(file) != TORCH_MAGIC:
            sys.exit(f"{path}: not a file of torch.save in its old format")
        pickle_of(file)
        if not pickle_of(file)["little_endian"]:
            sys.exit(f"{path}: expected little-endian numbers")
        tensors = pickle_of(file)
        dtypes = {tensor.storage: tensor.dtype for tensor in tensors.values()}
        storages = {}
        for key in pickle_of(file):
            (count,) = struct.unpack("<q", file.read(8))
            dtype = np.dtype(dtypes[key])
            storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return {name: tensor.array(storages[tensor.storage]) for name, tensor in tensors.items()}


class TorchTensor(collections.namedtuple("TorchTensor", "storage dtype offset shape strides")):
    """A view of a storage; offset and strides count elements."""

    def array(self, storage: np.ndarray) -> np.ndarray:
        strides = [stride * storage.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides, writeable=False)
        return np.ascontiguousarray(view).reshape(self.shape)


class TensorUnpickler(pickle.Unpickler):
    """Knows tensors and containers. A pickle can name any function of Python; this one calls none but these."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: TorchTensor(*storage, offset, shape, strides)
        if module == "torch" and name in TORCH_DTYPES:
            return TORCH_DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, identifier: tuple) -> tuple:
        kind, dtype, key, *_ = identifier
        if kind != "storage":
            raise pickle.UnpicklingError(f"expected a storage, found {kind}")
        return key, dtype


def pickle_of(file):
    return TensorUnpickler(file).load()
