"""Check Core ML packages, and run them: in Core ML on macOS, elsewhere in our interpreter."""

from __future__ import annotations

import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import coremltools as ct
from coremltools.proto import FeatureTypes_pb2, Model_pb2

from tsmzoo.artifact.arrays import check_outputs, check_tensors, runtime_error
from tsmzoo.artifact.contract import METADATA_KEY, Contract
from tsmzoo.errors import ArtifactError
from tsmzoo.typing import Array

from . import neural_engine
from .interpreter import ProgramRunner
from .program import read_both

_DTYPES = {number: name.lower() for name, number in FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.items()}


def check(path: Path, contract: Contract) -> tuple[list[str], list[str]]:
    """Check the saved specification against the contract, and that every weight blob is in place.

    Advice is on the Neural Engine, as far as what keeps a program from it is documented.
    """
    package, program = read_both(path)
    spec, block = package.spec, package.block
    description = spec.description
    items = (*description.input, *description.output, *description.state)
    wanted = {
        tensor.name: ("image", (tensor.shape[2], tensor.shape[3]))
        if tensor.type == "image"
        else ("float32", tensor.shape)
        for tensor in (*contract.inputs, *contract.outputs)
    } | {part.name: (part.dtype, part.shape) for part in contract.kept_states}
    if len(items) != len(wanted):
        raise ArtifactError(f"{path}: describes {len(items)} tensors, its contract says {len(wanted)}; export it again")
    check_tensors(path, {item.name: _described(item) for item in items}, wanted)
    # Those of the program itself, which are what runs.
    given = {name: kind for operation in program.operations for name, kind in operation.outputs}
    own = program.inputs | program.states | {name: given[name] for name in program.outputs if name in given}
    tensors = (*contract.inputs, *contract.outputs, *contract.kept_states)
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
            raise runtime_error(path, "Core ML rejects", error) from None
        self._images = {tensor.name for tensor in contract.inputs if tensor.type == "image"}
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
            raise runtime_error(self._path, "Core ML fails on", error) from None
        check_outputs(self._path, self._contract, inputs, outputs)
        return outputs

    def reset(self) -> None:
        """Begin anew: a new state is all zeros."""
        self._state = self._model.make_state() if self._implicit else None
        self.stream: dict[str, Array] = {}


def load(path: Path, contract: Contract, threads: int | None = None) -> CoremlRunner | ProgramRunner:
    """Return Core ML on macOS, elsewhere our interpreter."""
    return CoremlRunner(path, contract) if platform.system() == "Darwin" else ProgramRunner(path)
