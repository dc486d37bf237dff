"""Read ML Programs without Core ML: a package's files as they are written."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tsmzoo.artifact.contract import MOST_NUMBERS
from tsmzoo.errors import ArtifactError
from tsmzoo.system import files
from tsmzoo.typing import Array

# --- what a package holds --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Type:
    """Of a tensor: its dtype as ML Programs name it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Operation:
    """One operation: its arguments by parameter, each one or several names or constants, and what it gives."""

    kind: str
    name: str
    arguments: dict[str, tuple[str | Array, ...]]
    outputs: tuple[tuple[str, Type], ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


@dataclass(frozen=True)
class Program:
    """The one function of a package, its constants decoded."""

    inputs: dict[str, Type]
    #: Tensors that live from one run to the next (iOS 18).
    states: dict[str, Type]
    #: NumPy's types of the outputs as the model describes them; the program's own may be others.
    outputs: dict[str, str]
    #: Inputs that are images, and whether their channels stand in the order BGR.
    images: dict[str, bool]
    operations: tuple[Operation, ...]


class MalformedProgram(Exception):
    """What is wrong with a package, in words."""

    def of(self, path: Path) -> ArtifactError:
        """Return it as the user's error."""
        return ArtifactError(f"{path}: {self}; export it again, or report this model")


#: MIL's types: name, NumPy's type of an element.
_TYPES = {
    MIL_pb2.BOOL: ("bool", "bool"),
    MIL_pb2.STRING: ("string", "str"),
    MIL_pb2.FLOAT16: ("fp16", "float16"),
    MIL_pb2.FLOAT32: ("fp32", "float32"),
    **{
        getattr(MIL_pb2, name.upper()): (name, name) for name in ("int8", "int16", "int32", "uint8", "uint16", "uint32")
    },
}
_ELEMENTS = dict(_TYPES.values())
#: The types of blobs, by the numbers that `weight.bin` has for them (coremltools, MILBlob/Blob/BlobDataType.hpp).
_BLOBS = {1: "fp16", 2: "fp32", 3: "uint8", 4: "int8", 6: "int16", 7: "uint16", 14: "int32", 15: "uint32"}
#: Of a blob: its mark, type, bytes and place (MILBlob/Blob/StorageFormat.hpp); blobs and data begin at multiples of 64.
_BLOB = struct.Struct("<IIQQ")
_MARK, _ALIGNMENT = 0xDEADBEEF, 64
_STORAGE_VERSION = 2


class _Item(msgspec.Struct, frozen=True):
    path: str


class _Manifest(msgspec.Struct, frozen=True):
    itemInfoEntries: dict[str, _Item]
    rootModelIdentifier: str


#: Bytes that a manifest, a specification and a file of weights may have; protobuf itself takes no more than 2 GB.
_MOST_MANIFEST, _MOST = 2**20, 2**31


@dataclass(frozen=True)
class Package:
    """The specification of a package, with the operations of its function."""

    spec: Any
    function: Any
    block: Any
    #: Gives the bytes of a file of weights by the name that the specification has for it.
    weights: Callable[[str], bytes]


def read(path: Path) -> Program:
    """Read the package at `path`. Raises ArtifactError if it is damaged or holds what is not known here."""
    return read_both(path)[1]


def read_both(path: Path) -> tuple[Package, Program]:
    """Read the package at `path` as it is written, and what that means. Raises ArtifactError as `read` does."""
    try:
        package = _package(path)
        return package, _program(package)
    except MalformedProgram as error:
        raise error.of(path) from None


def _package(path: Path) -> Package:
    model, weights = _files(path)
    spec: Any = Model_pb2.Model()
    try:
        spec.ParseFromString(files.read(model, _MOST))
    except (OSError, DecodeError):
        raise MalformedProgram(f"{model.name} is no specification of Core ML") from None
    if spec.WhichOneof("Type") != "mlProgram":
        raise MalformedProgram("holds no ML Program")
    if len(spec.mlProgram.functions) != 1:
        raise MalformedProgram(f"holds {len(spec.mlProgram.functions)} functions; one is known here")
    (function,) = spec.mlProgram.functions.values()
    if function.opset not in function.block_specializations:
        raise MalformedProgram(f"lacks the operations of its opset, {function.opset}")
    return Package(spec, function, function.block_specializations[function.opset], weights)


def _program(package: Package) -> Program:
    spec, function, block, weights = package.spec, package.function, package.block, package.weights
    images, outputs = _features(spec.description)
    if missing := outputs.keys() - set(block.outputs):
        raise MalformedProgram(f"describes {missing.pop()!r}, which its program does not give")
    values = {item.name: item.type for item in function.inputs}
    states = {name for name, kind in values.items() if kind.WhichOneof("type") == "stateType"}
    return Program(
        inputs={name: _type(kind) for name, kind in values.items() if name not in states},
        states={name: _type(values[name].stateType.wrappedType) for name in states},
        outputs=outputs,
        images=images,
        operations=tuple(_operation(item, weights) for item in block.operations),
    )


def _files(path: Path) -> tuple[Path, Callable[[str], bytes]]:
    """Return the specification of a package, and what gives the bytes of a file that it names.

    Nothing outside of the package is read, and nothing in it written: coremltools' own reader rewrites manifests.
    """
    _check_confined(path)
    data = path / "Data"
    try:
        manifest = msgspec.json.decode(files.read(path / "Manifest.json", _MOST_MANIFEST), type=_Manifest)
        items = {key: _inside(data, item.path) for key, item in manifest.itemInfoEntries.items()}
        model = items[manifest.rootModelIdentifier]
        if not model.is_file():
            raise MalformedProgram(
                f"has no specification at {manifest.itemInfoEntries[manifest.rootModelIdentifier].path}"
            )
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise MalformedProgram(f"has no manifest that leads to a specification ({type(error).__name__})") from None

    @cache
    def content(name: str) -> bytes:
        inside, prefix = model.parent.relative_to(data), "@model_path/"
        file = _inside(data, f"{inside.as_posix()}/{name.removeprefix(prefix)}") if name.startswith(prefix) else None
        try:
            if file is None or not file.is_file():
                raise MalformedProgram(f"keeps weights in {name[:80]}, which is not in it")
            found = files.read(file, _MOST)
        except (OSError, ValueError):
            raise MalformedProgram(f"keeps weights in {name[:80]}, which cannot be read") from None
        if struct.unpack_from("<II", found.ljust(8, b"\0"))[1] != _STORAGE_VERSION:
            raise MalformedProgram(f"{file.name} is no file of weights of version {_STORAGE_VERSION}")
        return found

    return model, content


def _inside(folder: Path, name: str) -> Path:
    """Return the path of what a package calls `name`. Raises MalformedProgram if that leads out of it."""
    place = PurePosixPath(name)
    if not name or "\\" in name or place.is_absolute() or ".." in place.parts:
        raise MalformedProgram(f"names {name[:80]}, which is not in it")
    return folder / place


def _check_confined(path: Path) -> None:
    """Raise MalformedProgram if a package holds anything but folders and plain files, above all links."""
    for folder, names, plain in os.walk(path):
        for name in (*names, *plain):
            mode = Path(folder, name).lstat().st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise MalformedProgram(f"holds {name[:80]}, which is no plain file")


def _called(names: Any, number: int) -> str:
    """Return what protobuf calls a number, which may be one of a later version."""
    return str(names.Name(number)) if number in names.values() else str(number)


def _features(description: Any) -> tuple[dict[str, bool], dict[str, str]]:
    """Return the images among the inputs, and the types of the outputs."""
    images, outputs = {}, {}
    for item in description.input:
        if item.type.WhichOneof("Type") == "imageType":
            space = _called(FeatureTypes_pb2.ImageFeatureType.ColorSpace, item.type.imageType.colorSpace)
            if space not in ("RGB", "BGR"):
                raise MalformedProgram(f"{item.name!r} is an image in {space}, which is not known here")
            images[item.name] = space == "BGR"
        elif item.type.WhichOneof("Type") != "multiArrayType":
            raise MalformedProgram(f"{item.name!r} is a {item.type.WhichOneof('Type')}, which is not known here")
    for item in description.output:
        if item.type.WhichOneof("Type") != "multiArrayType":
            raise MalformedProgram(f"{item.name!r} is a {item.type.WhichOneof('Type')}, which is not known here")
        kind = _called(FeatureTypes_pb2.ArrayFeatureType.ArrayDataType, item.type.multiArrayType.dataType)
        outputs[item.name] = kind.lower().replace("double", "float64")
        if outputs[item.name] not in ("float16", "float32", "float64", "int32"):
            raise MalformedProgram(f"{item.name!r} is of {kind}, which is not known here")
    return images, outputs


def _type(value: Any) -> Type:
    if value.WhichOneof("type") != "tensorType":
        raise MalformedProgram(f"has a value of {value.WhichOneof('type')}, which is not known here")
    tensor = value.tensorType
    if tensor.dataType not in _TYPES:
        raise MalformedProgram(f"has a tensor of {_called(MIL_pb2.DataType, tensor.dataType)}, which is not known here")
    if any(axis.WhichOneof("dimension") != "constant" for axis in tensor.dimensions):
        raise MalformedProgram("has a tensor whose shape is not fixed, which is not known here")
    shape = tuple(axis.constant.size for axis in tensor.dimensions)
    if prod(shape) > MOST_NUMBERS:
        raise MalformedProgram(f"has a tensor of the shape {list(shape)}, which nothing holds")
    return Type(_TYPES[tensor.dataType][0], shape)


def _operation(item: Any, weights: Callable[[str], bytes]) -> Operation:
    name = item.outputs[0].name if item.outputs else item.type
    try:
        if item.blocks:
            raise MalformedProgram("has blocks of its own, which are not known here")
        arguments = {
            parameter: tuple(
                binding.name if binding.WhichOneof("binding") == "name" else _constant(binding.value, weights)
                for binding in argument.arguments
            )
            for parameter, argument in item.inputs.items()
        }
        # Constants have theirs among the attributes, as have those of iOS 16 that are compressed.
        attributes = {key: (_constant(value, weights),) for key, value in item.attributes.items() if key != "name"}
        outputs = tuple((output.name, _type(output.type)) for output in item.outputs)
    except MalformedProgram as error:
        raise MalformedProgram(f"{item.type} {name!r} {error}") from None
    return Operation(item.type, name, arguments | attributes, outputs)


def _constant(value: Any, weights: Callable[[str], bytes]) -> Array:
    """Decode a constant: in the protobuf, or in a file of weights."""
    kind = _type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        return _elements(_blob(weights(value.blobFileValue.fileName), value.blobFileValue.offset, kind), kind)
    tensor = value.immediateValue.tensor
    stored = tensor.WhichOneof("value")
    if stored is None:
        raise MalformedProgram(f"has a constant as {value.immediateValue.WhichOneof('value')}, which is not known here")
    elements = getattr(tensor, stored).values
    if stored == "bytes":
        return _elements(elements, kind)
    if len(elements) != prod(kind.shape):
        raise MalformedProgram(f"has a constant of {len(elements)} elements instead of {kind}")
    try:
        return np.array(list(elements), _ELEMENTS[kind.dtype]).reshape(kind.shape)
    except (OverflowError, ValueError):
        raise MalformedProgram(f"has a constant whose elements are no {kind}") from None


def _blob(content: bytes, place: int, kind: Type) -> bytes:
    if place % _ALIGNMENT or place + _BLOB.size > len(content):
        raise MalformedProgram(f"has no weights at byte {place} of {len(content)}")
    mark, stored, size, begin = _BLOB.unpack_from(content, place)
    if mark != _MARK:
        raise MalformedProgram(f"has no weights at byte {place}: their mark is not there")
    if _BLOBS.get(stored) != kind.dtype:
        raise MalformedProgram(f"has weights of type {_BLOBS.get(stored, stored)} instead of {kind}")
    if begin % _ALIGNMENT or begin + size > len(content):
        raise MalformedProgram(f"has weights that lie at bytes {begin} to {begin + size} of {len(content)}")
    return content[begin : begin + size]


def _elements(raw: bytes, kind: Type) -> Array:
    numpy = np.dtype(_ELEMENTS[kind.dtype])
    if kind.dtype == "string" or len(raw) != prod(kind.shape) * numpy.itemsize:
        raise MalformedProgram(f"has a constant of {len(raw)} bytes instead of {kind}")
    return np.frombuffer(raw, numpy).reshape(kind.shape)
