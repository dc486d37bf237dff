"""Run ML Programs without Core ML, by torch on the CPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np
import torch
from torch import Tensor

from tsmzoo.system.threads import one_thread
from tsmzoo.text import of_error
from tsmzoo.typing import Array

from .ops import COMPUTED, DTYPES, EXACT
from .program import MalformedProgram, Operation, Program, Type, read

#: A tensor that an operation takes: the name of one that is computed, or one that is known before.
Argument = str | Tensor
_STATE_OPERATIONS = ("read_state", "write_state")


@dataclass(frozen=True)
class _Step:
    """An operation that is ready: its constants bound."""

    operation: Operation
    function: Callable[..., Any]
    #: In the order of the function's parameters; a list where it takes several tensors.
    tensors: list[Argument | list[Argument] | None]
    #: Computed in fp32 where operands are fp16, and rounded.
    widen: bool
    #: Tensors that no later operation needs.
    free: list[str] = field(default_factory=list)

    def names(self) -> set[str]:
        """Return what must have been computed before."""
        flat = [each for given in self.tensors for each in (given if isinstance(given, list) else [given])]
        return {each for each in flat if isinstance(each, str)}

    def run(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what the operation gives, by name.

        Raises MalformedProgram if that is not what the program declares.
        """

        def tensor(given: Argument) -> Tensor:
            value = values[given] if isinstance(given, str) else given
            return value.float() if self.widen and value.dtype == torch.float16 else value

        tensors = [
            [tensor(each) for each in given] if isinstance(given, list) else None if given is None else tensor(given)
            for given in self.tensors
        ]
        try:
            found = self.function(*tensors)
        except (RuntimeError, ValueError, IndexError, TypeError, OverflowError) as error:
            raise MalformedProgram(f"{self.operation} cannot be computed ({of_error(error)})") from None
        results = [found] if isinstance(found, Tensor) else found
        named = self.names()
        halves = any(values[name].dtype == torch.float16 for name in named)
        if len(results) != len(self.operation.outputs):
            raise MalformedProgram(f"{self.operation} gives {len(results)} tensors, not {len(self.operation.outputs)}")
        given = {}
        for result, (name, kind) in zip(results, self.operation.outputs, strict=True):
            dtype = _torch(kind)
            # Compressed constants alone have no operand whose type is that of the result.
            if self.widen and result.dtype == torch.float32 and (halves or (not named and dtype == torch.float16)):
                result = result.half()
            if result.dtype != dtype or result.shape != kind.shape:
                raise MalformedProgram(
                    f"{self.operation} gives {result.dtype} {tuple(result.shape)}, its program says {kind}"
                )
            given[name] = result
        return given


def _torch(kind: Type) -> torch.dtype:
    if kind.dtype not in DTYPES:
        raise MalformedProgram(f"computes in {kind.dtype}, which is not known here")
    return DTYPES[kind.dtype]


class _Scope:
    """What is known before a program runs: its constants, and what is computed of nothing else."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self.tensors: dict[str, Tensor] = {}
        #: Those of fp16 in fp32, for the operations that compute so: widened once, not at each run.
        self._wide: dict[str, Tensor] = {}

    def bind(self, operation: Operation, function: Callable[..., Any], *, widen: bool) -> _Step:
        """Return the operation with its constants in their places.

        Raises MalformedProgram naming what `function` lacks.
        """
        parameters, hints = inspect.signature(function).parameters, get_type_hints(function, include_extras=True)
        if unknown := operation.arguments.keys() - parameters.keys():
            raise MalformedProgram(f"{operation} has a parameter {min(unknown)!r}, which is not known here")
        tensors: list[Argument | list[Argument] | None] = []
        constants = {}
        for name, parameter in parameters.items():
            arguments = operation.arguments.get(name)
            constant = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            if arguments is None:
                if parameter.default is inspect.Parameter.empty:
                    raise MalformedProgram(f"{operation} lacks its parameter {name!r}")
                if not constant:
                    tensors.append(None)
            elif constant:
                constants[name] = self._value(operation, name, arguments, hints[name])
            elif hints[name] == Sequence[Tensor]:
                tensors.append([self._tensor(each, widen) for each in arguments])
            elif len(arguments) == 1:
                tensors.append(self._tensor(arguments[0], widen))
            else:
                raise MalformedProgram(f"{operation} has {len(arguments)} tensors as {name!r}, where one is known")
        return _Step(operation, partial(function, **constants), tensors, widen)

    def _value(self, operation: Operation, name: str, arguments: tuple[str | Array, ...], hint: Any) -> Any:
        """Return a constant as its annotation wants it."""
        given = arguments[0] if len(arguments) == 1 else None
        array = self.arrays.get(given) if isinstance(given, str) else given
        if array is None:
            raise MalformedProgram(f"{operation} computes its {name!r}, which is known here as a constant only")
        try:
            return msgspec.convert(array.tolist(), hint)
        except msgspec.ValidationError as error:
            raise MalformedProgram(
                f"{operation} has {name} = {array.tolist()}, which is not known here ({error})"
            ) from None

    def _tensor(self, given: str | Array, widen: bool) -> Argument:
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
        raise MalformedProgram(f"takes the text {str(array)!r} for a tensor")
    return torch.tensor(array)  # a copy: the file's bytes are not to be written to


class ProgramRunner:
    """A package, run operation by operation in one thread (see tsmzoo.system.threads).

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
        except MalformedProgram as error:
            raise error.of(path) from None

    def reset(self) -> None:
        """Put the program's states back to zero."""
        self._states = {
            name: torch.zeros(kind.shape, dtype=_torch(kind)) for name, kind in self._program.states.items()
        }
        self.stream: dict[str, Array] = {}

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run once; an image is an array of bytes, 1, 3, H, W, in RGB.

        Raises ArtifactError if an input is not of the program's shape, or the program contradicts itself.
        """
        try:
            with torch.inference_mode(), one_thread():
                values = {name: self._input(name, kind, inputs) for name, kind in self._program.inputs.items()}
                for step in self._steps:
                    values |= step.run(values)
                    for name in step.free:
                        del values[name]
        except MalformedProgram as error:
            raise error.of(self._path) from None
        # Copies: what a caller does with them is to change neither constants nor states nor its own inputs.
        return {
            name: np.array((values if name in values else self._known)[name].numpy(), dtype, order="C")
            for name, dtype in self._program.outputs.items()
        }

    def _input(self, name: str, kind: Type, inputs: dict[str, Array]) -> Tensor:
        found = inputs.get(name)
        if found is None or found.shape != kind.shape:
            raise MalformedProgram(f"takes {name!r} as {kind}, not {'nothing' if found is None else found.shape}")
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
                raise MalformedProgram(f"{operation} needs {min(unknown)!r}, which nothing in front of it gives")
            if step.names() or operation.kind in _STATE_OPERATIONS:
                steps.append(step)
                defined |= {name for name, _ in operation.outputs}
            else:  # compressed weights, above all
                scope.tensors |= step.run({})
        needed = set(program.outputs)
        known = {name: scope.tensors[name] for name in needed - defined if name in scope.tensors}
        if missing := needed - defined - known.keys():
            raise MalformedProgram(f"gives no {min(missing)!r}")
        for step in reversed(steps):
            names = step.names() | {name for name, _ in step.operation.outputs}
            step.free.extend(names - needed)
            needed |= names
        return steps, known

    def _constant(self, operation: Operation) -> Array:
        values, kinds = operation.arguments.get("val", ()), [kind for _, kind in operation.outputs]
        if len(values) != 1 or len(kinds) != 1:
            raise MalformedProgram(f"{operation} has {len(values)} values and {len(kinds)} results, where one is known")
        value = values[0]
        if not isinstance(value, np.ndarray) or value.shape != kinds[0].shape:
            raise MalformedProgram(f"{operation} is not {kinds[0]}")
        return value

    def _step(self, operation: Operation, program: Program, scope: _Scope) -> _Step:
        if operation.kind in _STATE_OPERATIONS:
            given = operation.arguments.get("input", ())
            state = given[0] if len(given) == 1 else None
            if not isinstance(state, str) or state not in program.states:
                raise MalformedProgram(f"{operation} is of no state of this program")
            others = {name: value for name, value in operation.arguments.items() if name != "input"}
            return scope.bind(replace(operation, arguments=others), self._access(operation.kind, state), widen=False)
        table = COMPUTED if operation.kind in COMPUTED else EXACT
        if operation.kind not in table:
            raise MalformedProgram(f"needs the operation {operation}, which is not known here")
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
