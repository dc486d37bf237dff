"""ML Programs without Core ML: a package read from its files as they are written, and run by torch on the CPU.

Core ML predicts on macOS alone, and a file that nothing has run is not verified. What is read is what a phone gets: the
manifest, the specification's protobuf, the blobs of `weight.bin`. What each operation means stands in
`mlprogram_ops.py`. Whatever is not known here, an operation, a parameter, a value or a type, is named in an error.
"""

from __future__ import annotations

import inspect
import os
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any, get_type_hints

import msgspec
import numpy as np
import torch
from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from torch import Tensor

from tsmzoo import files
from tsmzoo.artifact import Array
from tsmzoo.errors import ArtifactError
from tsmzoo.text import of_error
from tsmzoo.threads import one_thread

from .mlprogram_ops import COMPUTED, DTYPES, EXACT

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


class _Bad(Exception):
    """What is wrong with a package, in words."""

    def of(self, path: Path) -> ArtifactError:
        """Return it as the user's error."""
        return ArtifactError(f"{path}: {self}; export it again, or report this model")


#: MIL's types: name, NumPy's type of an element, bits that it takes.
_TYPES = {
    MIL_pb2.BOOL: ("bool", "bool", 8),
    MIL_pb2.STRING: ("string", "str", 0),
    MIL_pb2.FLOAT16: ("fp16", "float16", 16),
    MIL_pb2.FLOAT32: ("fp32", "float32", 32),
    MIL_pb2.INT8: ("int8", "int8", 8),
    MIL_pb2.INT16: ("int16", "int16", 16),
    MIL_pb2.INT32: ("int32", "int32", 32),
    MIL_pb2.UINT8: ("uint8", "uint8", 8),
    MIL_pb2.UINT16: ("uint16", "uint16", 16),
    MIL_pb2.UINT32: ("uint32", "uint32", 32),
    MIL_pb2.UINT1: ("uint1", "uint8", 1),
    MIL_pb2.UINT2: ("uint2", "uint8", 2),
    MIL_pb2.UINT3: ("uint3", "uint8", 3),
    MIL_pb2.UINT4: ("uint4", "uint8", 4),
    MIL_pb2.UINT6: ("uint6", "uint8", 6),
    MIL_pb2.INT4: ("int4", "int8", 4),
}
_ELEMENTS = {name: (numpy, bits) for name, numpy, bits in _TYPES.values()}
#: The types of blobs, by the numbers that `weight.bin` has for them (coremltools, MILBlob/Blob/BlobDataType.hpp).
_BLOBS = {
    **{1: "fp16", 2: "fp32", 3: "uint8", 4: "int8", 6: "int16", 7: "uint16", 8: "int4", 9: "uint1", 10: "uint2"},
    **{11: "uint4", 12: "uint3", 13: "uint6", 14: "int32", 15: "uint32"},
}
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
#: Numbers that a tensor may hold.
_MOST_NUMBERS = 2**31


@dataclass(frozen=True)
class Package:
    """The specification of a package, with the operations of its function."""

    spec: Any
    function: Any
    block: Any
    #: Gives the bytes of a file of weights by the name that the specification has for it.
    weights: Callable[[str], bytes]


def read(path: Path) -> Program:
    """Read the package at `path`. Raises ArtifactError where it is damaged or holds what is not known here."""
    try:
        return _program(_package(path))
    except _Bad as error:
        raise error.of(path) from None


def read_both(path: Path) -> tuple[Package, Program]:
    """Read the package at `path` as it is written, and what that means. Raises ArtifactError as `read` does."""
    try:
        package = _package(path)
        return package, _program(package)
    except _Bad as error:
        raise error.of(path) from None


def _package(path: Path) -> Package:
    model, weights = _files(path)
    spec: Any = Model_pb2.Model()
    try:
        spec.ParseFromString(files.read(model, _MOST))
    except (OSError, DecodeError):
        raise _Bad(f"{model.name} is no specification of Core ML") from None
    if spec.WhichOneof("Type") != "mlProgram":
        raise _Bad("holds no ML Program")
    if len(spec.mlProgram.functions) != 1:
        raise _Bad(f"holds {len(spec.mlProgram.functions)} functions; one is known here")
    (function,) = spec.mlProgram.functions.values()
    if function.opset not in function.block_specializations:
        raise _Bad(f"lacks the operations of its opset, {function.opset}")
    return Package(spec, function, function.block_specializations[function.opset], weights)


def _program(package: Package) -> Program:
    spec, function, block, weights = package.spec, package.function, package.block, package.weights
    images, outputs = _features(spec.description)
    if missing := outputs.keys() - set(block.outputs):
        raise _Bad(f"describes {missing.pop()!r}, which its program does not give")
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
            raise _Bad(f"has no specification at {manifest.itemInfoEntries[manifest.rootModelIdentifier].path}")
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise _Bad(f"has no manifest that leads to a specification ({type(error).__name__})") from None

    @cache
    def content(name: str) -> bytes:
        inside, prefix = model.parent.relative_to(data), "@model_path/"
        file = _inside(data, f"{inside.as_posix()}/{name.removeprefix(prefix)}") if name.startswith(prefix) else None
        try:
            if file is None or not file.is_file():
                raise _Bad(f"keeps weights in {name[:80]}, which is not in it")
            found = files.read(file, _MOST)
        except (OSError, ValueError):
            raise _Bad(f"keeps weights in {name[:80]}, which cannot be read") from None
        if struct.unpack_from("<II", found.ljust(8, b"\0"))[1] != _STORAGE_VERSION:
            raise _Bad(f"{file.name} is no file of weights of version {_STORAGE_VERSION}")
        return found

    return model, content


def _inside(folder: Path, name: str) -> Path:
    """Return the path of what a package calls `name`. Raises _Bad where that leads out of it."""
    place = PurePosixPath(name)
    if not name or "\\" in name or place.is_absolute() or ".." in place.parts:
        raise _Bad(f"names {name[:80]}, which is not in it")
    return folder / place


def _check_confined(path: Path) -> None:
    """Raise _Bad where a package holds anything but folders and plain files, above all links."""
    for folder, names, plain in os.walk(path):
        for name in (*names, *plain):
            mode = Path(folder, name).lstat().st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise _Bad(f"holds {name[:80]}, which is no plain file")


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
                raise _Bad(f"{item.name!r} is an image in {space}, which is not known here")
            images[item.name] = space == "BGR"
        elif item.type.WhichOneof("Type") != "multiArrayType":
            raise _Bad(f"{item.name!r} is a {item.type.WhichOneof('Type')}, which is not known here")
    for item in description.output:
        if item.type.WhichOneof("Type") != "multiArrayType":
            raise _Bad(f"{item.name!r} is a {item.type.WhichOneof('Type')}, which is not known here")
        kind = _called(FeatureTypes_pb2.ArrayFeatureType.ArrayDataType, item.type.multiArrayType.dataType)
        outputs[item.name] = kind.lower().replace("double", "float64")
        if outputs[item.name] not in ("float16", "float32", "float64", "int32"):
            raise _Bad(f"{item.name!r} is of {kind}, which is not known here")
    return images, outputs


def _type(value: Any) -> Type:
    if value.WhichOneof("type") != "tensorType":
        raise _Bad(f"has a value of {value.WhichOneof('type')}, which is not known here")
    tensor = value.tensorType
    if tensor.dataType not in _TYPES:
        raise _Bad(f"has a tensor of {_called(MIL_pb2.DataType, tensor.dataType)}, which is not known here")
    if any(axis.WhichOneof("dimension") != "constant" for axis in tensor.dimensions):
        raise _Bad("has a tensor whose shape is not fixed, which is not known here")
    shape = tuple(axis.constant.size for axis in tensor.dimensions)
    if prod(shape) > _MOST_NUMBERS:
        raise _Bad(f"has a tensor of the shape {list(shape)}, which nothing holds")
    return Type(_TYPES[tensor.dataType][0], shape)


def _operation(item: Any, weights: Callable[[str], bytes]) -> Operation:
    name = item.outputs[0].name if item.outputs else item.type
    try:
        if item.blocks:
            raise _Bad("has blocks of its own, which are not known here")
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
    except _Bad as error:
        raise _Bad(f"{item.type} {name!r} {error}") from None
    return Operation(item.type, name, arguments | attributes, outputs)


def _constant(value: Any, weights: Callable[[str], bytes]) -> Array:
    """Decode a constant: in the protobuf, or in a file of weights."""
    kind = _type(value.type)
    numpy, _ = _ELEMENTS[kind.dtype]
    if value.WhichOneof("value") == "blobFileValue":
        return _unpacked(_blob(weights(value.blobFileValue.fileName), value.blobFileValue.offset, kind), kind)
    tensor = value.immediateValue.tensor
    stored = tensor.WhichOneof("value")
    if stored is None:
        raise _Bad(f"has a constant as {value.immediateValue.WhichOneof('value')}, which is not known here")
    elements = getattr(tensor, stored).values
    if stored == "bytes":
        return _unpacked(elements, kind)
    if len(elements) != prod(kind.shape):
        raise _Bad(f"has a constant of {len(elements)} elements instead of {kind}")
    try:
        return np.array(list(elements), numpy).reshape(kind.shape)
    except (OverflowError, ValueError):
        raise _Bad(f"has a constant whose elements are no {kind}") from None


def _blob(content: bytes, place: int, kind: Type) -> bytes:
    if place % _ALIGNMENT or place + _BLOB.size > len(content):
        raise _Bad(f"has no weights at byte {place} of {len(content)}")
    mark, stored, size, begin = _BLOB.unpack_from(content, place)
    if mark != _MARK:
        raise _Bad(f"has no weights at byte {place}: their mark is not there")
    if _BLOBS.get(stored) != kind.dtype:
        raise _Bad(f"has weights of type {_BLOBS.get(stored, stored)} instead of {kind}")
    if begin % _ALIGNMENT or begin + size > len(content):
        raise _Bad(f"has weights that lie at bytes {begin} to {begin + size} of {len(content)}")
    return content[begin : begin + size]


def _unpacked(raw: bytes, kind: Type) -> Array:
    """Return the elements in `raw`; those of less than a byte stand one after the other from the lowest bit on."""
    numpy, bits = _ELEMENTS[kind.dtype]
    count = prod(kind.shape)
    if not bits or len(raw) != -(-count * bits // 8):
        raise _Bad(f"has a constant of {len(raw)} bytes instead of {kind}")
    if bits >= 8:
        return np.frombuffer(raw, numpy).reshape(kind.shape)
    each = np.unpackbits(np.frombuffer(raw, "uint8"), bitorder="little")[: count * bits].reshape(count, bits)
    values = (each * (1 << np.arange(bits))).sum(1)
    if numpy == "int8":  # two's complement
        values -= (values >= 1 << (bits - 1)) * (1 << bits)
    unpacked: Array = values.astype(numpy).reshape(kind.shape)
    return unpacked


# --- running it ------------------------------------------------------------------------------------------------------

#: A tensor that an operation takes: the name of one that is computed, or one that is known before.
_Given = str | Tensor


@dataclass(frozen=True)
class _Step:
    """An operation that is ready: its constants bound."""

    operation: Operation
    function: Callable[..., Any]
    #: In the order of the function's parameters; a list where it takes several tensors.
    tensors: list[_Given | list[_Given] | None]
    #: Computed in fp32 where operands are fp16, and rounded.
    widen: bool
    #: What nothing needs any more afterwards.
    free: list[str] = field(default_factory=list)

    def names(self) -> set[str]:
        """Return what must have been computed before."""
        flat = [each for given in self.tensors for each in (given if isinstance(given, list) else [given])]
        return {each for each in flat if isinstance(each, str)}

    def run(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what the operation gives, by name. Raises _Bad where that is not what the program declares."""

        def tensor(given: _Given) -> Tensor:
            value = values[given] if isinstance(given, str) else given
            return value.float() if self.widen and value.dtype == torch.float16 else value

        tensors = [
            [tensor(each) for each in given] if isinstance(given, list) else None if given is None else tensor(given)
            for given in self.tensors
        ]
        try:
            found = self.function(*tensors)
        except (RuntimeError, ValueError, IndexError, TypeError, OverflowError) as error:
            raise _Bad(f"{self.operation} cannot be computed ({of_error(error)})") from None
        results = [found] if isinstance(found, Tensor) else found
        named = self.names()
        halves = any(values[name].dtype == torch.float16 for name in named)
        if len(results) != len(self.operation.outputs):
            raise _Bad(f"{self.operation} gives {len(results)} tensors, not {len(self.operation.outputs)}")
        given = {}
        for result, (name, kind) in zip(results, self.operation.outputs, strict=True):
            dtype = _torch(kind)
            # Compressed constants alone have no operand whose type is that of the result.
            if self.widen and result.dtype == torch.float32 and (halves or (not named and dtype == torch.float16)):
                result = result.half()
            if result.dtype != dtype or result.shape != kind.shape:
                raise _Bad(f"{self.operation} gives {result.dtype} {tuple(result.shape)}, its program says {kind}")
            given[name] = result
        return given


def _torch(kind: Type) -> torch.dtype:
    if kind.dtype not in DTYPES:
        raise _Bad(f"computes in {kind.dtype}, which is not known here")
    return DTYPES[kind.dtype]


class _Scope:
    """What is known before a program runs: its constants, and what is computed of nothing else."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self.tensors: dict[str, Tensor] = {}
        #: Those of fp16 in fp32, for the operations that compute so: widened once, not at each run.
        self._wide: dict[str, Tensor] = {}

    def bind(self, operation: Operation, function: Callable[..., Any], *, widen: bool) -> _Step:
        """Return the operation with its constants in their places. Raises _Bad naming what `function` lacks."""
        parameters, hints = inspect.signature(function).parameters, get_type_hints(function, include_extras=True)
        if unknown := operation.arguments.keys() - parameters.keys():
            raise _Bad(f"{operation} has a parameter {min(unknown)!r}, which is not known here")
        tensors: list[_Given | list[_Given] | None] = []
        constants = {}
        for name, parameter in parameters.items():
            arguments = operation.arguments.get(name)
            constant = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            if arguments is None:
                if parameter.default is inspect.Parameter.empty:
                    raise _Bad(f"{operation} lacks its parameter {name!r}")
                if not constant:
                    tensors.append(None)
            elif constant:
                constants[name] = self._value(operation, name, arguments, hints[name])
            elif hints[name] == Sequence[Tensor]:
                tensors.append([self._tensor(each, widen) for each in arguments])
            elif len(arguments) == 1:
                tensors.append(self._tensor(arguments[0], widen))
            else:
                raise _Bad(f"{operation} has {len(arguments)} tensors as {name!r}, where one is known")
        return _Step(operation, partial(function, **constants), tensors, widen)

    def _value(self, operation: Operation, name: str, arguments: tuple[str | Array, ...], hint: Any) -> Any:
        """Return a constant as its annotation wants it."""
        given = arguments[0] if len(arguments) == 1 else None
        array = self.arrays.get(given) if isinstance(given, str) else given
        if array is None:
            raise _Bad(f"{operation} computes its {name!r}, which is known here as a constant only")
        try:
            return msgspec.convert(array.tolist(), hint)
        except msgspec.ValidationError as error:
            raise _Bad(f"{operation} has {name} = {array.tolist()}, which is not known here ({error})") from None

    def _tensor(self, given: str | Array, widen: bool) -> _Given:
        if not isinstance(given, str):
            return _to_torch(given)
        if given in self.arrays and given not in self.tensors:
            self.tensors[given] = _to_torch(self.arrays[given])
        if given not in self.tensors:
            return given
        tensor = self.tensors[given]
        if widen and tensor.dtype == torch.float16:
            return self._wide.setdefault(given, tensor.float())
        return tensor


def _to_torch(array: Array) -> Tensor:
    if array.dtype.kind == "U":
        raise _Bad(f"takes the text {str(array)!r} for a tensor")
    return torch.tensor(array)  # a copy: the file's bytes are not to be written to


class ProgramRunner:
    """A package, run operation by operation in one thread (see tsmzoo.threads).

    States of the program's own (iOS 18) last from one run to the next: an instance is one stream.
    """

    runtime = f"tsmzoo's ML Program interpreter, torch {torch.__version__}"

    def __init__(self, path: Path) -> None:
        """Read and prepare the package at `path`. Raises ArtifactError as `read` does."""
        program = read(path)
        try:
            with torch.inference_mode(), one_thread():
                self._steps, self._known = self._prepared(program)
            self._path, self._program = path, replace(program, operations=())
            self.reset()
        except _Bad as error:
            raise error.of(path) from None

    def reset(self) -> None:
        """Put the program's states back to zero."""
        self._states = {
            name: torch.zeros(kind.shape, dtype=_torch(kind)) for name, kind in self._program.states.items()
        }

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run once; an image is an array of bytes, 1, 3, H, W, in RGB.

        Raises ArtifactError where an input is not of the program's shape, or the program contradicts itself.
        """
        try:
            with torch.inference_mode(), one_thread():
                values = {name: self._input(name, kind, inputs) for name, kind in self._program.inputs.items()}
                for step in self._steps:
                    values |= step.run(values)
                    for name in step.free:
                        del values[name]
        except _Bad as error:
            raise error.of(self._path) from None
        # Copies: what a caller does with them is to change neither constants nor states nor its own inputs.
        return {
            name: np.array((values if name in values else self._known)[name].numpy(), dtype, order="C")
            for name, dtype in self._program.outputs.items()
        }

    def _input(self, name: str, kind: Type, inputs: dict[str, Array]) -> Tensor:
        found = inputs.get(name)
        if found is None or found.shape != kind.shape:
            raise _Bad(f"takes {name!r} as {kind}, not {'nothing' if found is None else found.shape}")
        if self._program.images.get(name):
            found = found[:, ::-1].copy()
        return torch.tensor(found).to(_torch(kind))

    def _prepared(self, program: Program) -> tuple[list[_Step], dict[str, Tensor]]:
        """Return the steps of a run, and the outputs that are known without one."""
        scope, steps, defined = _Scope(), list[_Step](), set(program.inputs)
        for operation in program.operations:
            if operation.kind == "const":
                scope.arrays[operation.outputs[0][0]] = self._constant(operation)
                continue
            step = self._step(operation, program, scope)
            if unknown := step.names() - defined:
                raise _Bad(f"{operation} needs {min(unknown)!r}, which nothing in front of it gives")
            if step.names() or operation.kind in _STATE_OPERATIONS:
                steps.append(step)
                defined |= {name for name, _ in operation.outputs}
            else:  # compressed weights, above all
                scope.tensors |= step.run({})
        needed = set(program.outputs)
        known = {name: scope.tensors[name] for name in needed - defined if name in scope.tensors}
        if missing := needed - defined - known.keys():
            raise _Bad(f"gives no {min(missing)!r}")
        for step in reversed(steps):
            names = step.names() | {name for name, _ in step.operation.outputs}
            step.free.extend(names - needed)
            needed |= names
        return steps, known

    def _constant(self, operation: Operation) -> Array:
        values, kinds = operation.arguments.get("val", ()), [kind for _, kind in operation.outputs]
        if len(values) != 1 or len(kinds) != 1:
            raise _Bad(f"{operation} has {len(values)} values and {len(kinds)} results, where one is known")
        value = values[0]
        if not isinstance(value, np.ndarray) or value.shape != kinds[0].shape:
            raise _Bad(f"{operation} is not {kinds[0]}")
        return value

    def _step(self, operation: Operation, program: Program, scope: _Scope) -> _Step:
        if operation.kind in _STATE_OPERATIONS:
            given = operation.arguments.get("input", ())
            state = given[0] if len(given) == 1 else None
            if not isinstance(state, str) or state not in program.states:
                raise _Bad(f"{operation} is of no state of this program")
            others = {name: value for name, value in operation.arguments.items() if name != "input"}
            return scope.bind(replace(operation, arguments=others), self._access(operation.kind, state), widen=False)
        table = COMPUTED if operation.kind in COMPUTED else EXACT
        if operation.kind not in table:
            raise _Bad(f"needs the operation {operation}, which is not known here")
        return scope.bind(operation, table[operation.kind], widen=table is COMPUTED)

    def _access(self, kind: str, state: str) -> Callable[..., Any]:
        """Return what reads a state, as it was last written, or writes it."""

        def read_state() -> Tensor:
            return self._states[state]

        def write_state(data: Tensor) -> tuple[()]:
            held = self._states[state]
            if (data.shape, data.dtype) != (held.shape, held.dtype):
                raise ValueError(f"the state {state!r} is {self._program.states[state]}")
            self._states[state] = data
            return ()

        return read_state if kind == "read_state" else write_state


_STATE_OPERATIONS = ("read_state", "write_state")
