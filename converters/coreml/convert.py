"""Core ML: an ML Program written by coremltools from torch.export; on macOS Core ML runs it, elsewhere mlprogram.py."""

from __future__ import annotations

import errno
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import coremltools as ct
import numpy as np
import torch
from coremltools.proto import FeatureTypes_pb2, Model_pb2
from torch import nn

from tsmzoo.artifact.arrays import check_outputs, check_tensors
from tsmzoo.artifact.contract import METADATA_KEY, Contract, DType, Layout, Tensor
from tsmzoo.errors import ArtifactError
from tsmzoo.text import of_error
from tsmzoo.typing import Array

from . import neural_engine
from .interpreter import ProgramRunner
from .program import read_both

frame_layout: Layout = "NCHW"
clip_layout: Layout = "NTCHW"
pixel_type: Literal["tensor", "image"] = "image"
packed_state = "packed_state"  # `state` is a word of ML Programs, which coremltools renames
precisions = ("fp32", "fp16")
libraries = ("torch", "coremltools")

_DTYPES = {number: name.lower() for name, number in FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.items()}
_PRECISIONS = {"fp16": ct.precision.FLOAT16, "fp32": ct.precision.FLOAT32}


def pixel_dtype(mode: str) -> DType:
    """An image holds bytes; clips are of rank 5, which no Core ML image is, and multi-arrays hold no bytes."""
    return "uint8" if mode == "online" else "float32"


@contextmanager
def _writing() -> Iterator[None]:
    """Raise OSError where coremltools, which writes to a temporary folder first, finds no room there."""
    try:
        yield
    except RuntimeError as error:
        if "FileWriter" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "its disk may be full", tempfile.gettempdir()) from None


@_writing()
def convert(model: nn.Module, contract: Contract, out: Path) -> None:
    """Write `model` as an ML Program for iOS 15 and later; 18 where it keeps its states itself.

    Weights in bytes, of which `quantise` takes care, are known from iOS 16 on.
    """
    examples = tuple(torch.zeros([int(n) for n in tensor.shape]) for tensor in contract.inputs)
    with torch.no_grad():
        program = torch.export.export(model, examples, strict=False).run_decompositions({})
    package = ct.convert(
        program,
        inputs=[_input(tensor) for tensor in contract.inputs],
        outputs=[ct.TensorType(name=tensor.name, dtype=np.float32) for tensor in contract.outputs],
        states=[_state(part) for part in _kept(contract)] or None,
        convert_to="mlprogram",
        compute_precision=_PRECISIONS[contract.precision],
        # States inside the file came with iOS 18.
        minimum_deployment_target=ct.target.iOS18 if contract.state == "implicit" else ct.target.iOS15,
        skip_model_load=True,
    )
    _save(package, contract, out)


@_writing()
def quantize(
    source: Path, contract: Contract, feeds: Sequence[dict[str, Array]], out: Path, keep_float: int = 0
) -> list[tuple[str, float]]:
    """Write the package `source` with its weights in int8, one scale a channel; computed in half precision."""
    import coremltools.optimize.coreml as optimize

    package = ct.models.MLModel(str(source), skip_model_load=True)
    weights = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
    _save(optimize.linear_quantize_weights(package, optimize.OptimizationConfig(weights)), contract, out)
    return []


def _save(package: Any, contract: Contract, out: Path) -> None:
    package.author = contract.citation
    package.license = contract.licence
    package.short_description = f"{contract.model}, exported by tsmzoo"
    package.user_defined_metadata[METADATA_KEY] = contract.embedded()
    package.save(str(out))
    # What coremltools lays beside the model for ExecuTorch, a tenth of a small package, is nothing to Core ML.
    (out / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)


def _is_image(tensor: Tensor) -> bool:
    return tensor.type == "image"


def _input(tensor: Tensor) -> Any:
    if _is_image(tensor):
        return ct.ImageType(name=tensor.name, shape=tensor.shape, color_layout=ct.colorlayout.RGB)
    return ct.TensorType(name=tensor.name, shape=tensor.shape, dtype=np.float32)


def _kept(contract: Contract) -> tuple[Tensor, ...]:
    """Return the states that the file keeps itself."""
    return contract.parts if contract.state == "implicit" else ()


def _state(part: Tensor) -> Any:
    return ct.StateType(wrapped_type=ct.TensorType(shape=part.shape, dtype=np.dtype(part.dtype).type), name=part.name)


def check(path: Path, contract: Contract) -> tuple[list[str], list[str]]:
    """Names, shapes and types of the saved specification as in the contract; every weight blob in place.

    Advice on the Neural Engine, as far as what keeps a program from it is documented.
    """
    package, program = read_both(path)
    spec, block = package.spec, package.block
    description = spec.description
    items = (*description.input, *description.output, *description.state)
    wanted = {
        tensor.name: ("image", (tensor.shape[2], tensor.shape[3])) if _is_image(tensor) else ("float32", tensor.shape)
        for tensor in (*contract.inputs, *contract.outputs)
    } | {part.name: (part.dtype, part.shape) for part in _kept(contract)}
    if len(items) != len(wanted):
        raise ArtifactError(f"{path}: describes {len(items)} tensors, its contract says {len(wanted)}; export it again")
    check_tensors(path, {item.name: _described(item) for item in items}, wanted)
    # Those of the program itself, which are what runs.
    given = {name: kind for operation in program.operations for name, kind in operation.outputs}
    own = program.inputs | program.states | {name: given[name] for name in program.outputs if name in given}
    tensors = (*contract.inputs, *contract.outputs, *_kept(contract))
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    check_tensors(path, {name: kind.shape for name, kind in own.items()}, shapes)
    if any(program.images.values()):
        raise ArtifactError(f"{path}: takes its image as BGR, its contract says RGB; export it again")
    contract.check_copy(path, description.metadata.userDefined.get(METADATA_KEY))
    values = [value for operation in block.operations for value in operation.attributes.values()]
    blobs = sum(value.WhichOneof("value") == "blobFileValue" for value in values)
    count = neural_engine.weights(block.operations)
    structure = [
        f"tensors as named ({len(wanted)})",
        f"{neural_engine.system(spec)} and later",
        f"{len(block.operations)} operations",
        f"{blobs} weight blobs in place",
        f"{count:,} weights ({count * 4e-6:.2f} MB in fp32, {count * 2e-6:.2f} in fp16, {count * 1e-6:.2f} in w8)",
    ]
    return structure, neural_engine.advice(spec, block.operations)


def _described(item: Model_pb2.FeatureDescription) -> tuple[str, tuple[int, ...]]:
    kind = item.type.WhichOneof("Type")
    if kind == "imageType":
        return "image", (item.type.imageType.height, item.type.imageType.width)
    array = item.type.stateType.arrayType if kind == "stateType" else item.type.multiArrayType
    return _DTYPES.get(array.dataType, str(array.dataType)), tuple(array.shape)


class CoremlRunner:
    """Core ML on this Mac."""

    runtime = f"Core ML, macOS {platform.mac_ver()[0]}"

    def __init__(self, path: Path, contract: Contract) -> None:
        self._path, self._contract = path, contract
        try:
            # A copy: coremltools writes the manifest anew of whatever it opens.
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / path.name
                shutil.copytree(path, copy)
                self._model = ct.models.MLModel(str(copy))
        except (OSError, RuntimeError, ValueError) as error:
            raise ArtifactError(f"{path}: Core ML rejects it ({of_error(error)}); export it again") from None
        self._images = {tensor.name for tensor in contract.inputs if _is_image(tensor)}
        self._implicit = contract.state == "implicit"
        self._state: Any
        self.reset()

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        from PIL import Image

        values = {
            name: Image.fromarray(value[0].transpose(1, 2, 0)) if name in self._images else value
            for name, value in inputs.items()
        }
        try:
            outputs: dict[str, Array] = self._model.predict(values, state=self._state)
        except (RuntimeError, ValueError) as error:
            raise ArtifactError(f"{self._path}: Core ML fails on it ({of_error(error)}); export it again") from None
        check_outputs(self._path, self._contract, inputs, outputs)
        return outputs

    def reset(self) -> None:
        """Begin anew: a new state is all zeros."""
        self._state = self._model.make_state() if self._implicit else None


def load(path: Path, contract: Contract, threads: int | None = None) -> CoremlRunner | ProgramRunner:
    """Core ML itself on macOS, elsewhere our interpreter of what is saved."""
    return CoremlRunner(path, contract) if platform.system() == "Darwin" else ProgramRunner(path)
