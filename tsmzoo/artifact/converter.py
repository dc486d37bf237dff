"""The interface between the formats and everything else: what a format can do, and what runs a file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract, State, check_consistent
from tsmzoo.artifact.tensors import TensorConventions
from tsmzoo.errors import ExportError
from tsmzoo.formats import Format, format_of
from tsmzoo.system.quiet import quiet
from tsmzoo.typing import Array

if TYPE_CHECKING:
    from torch import nn


class Runner(Protocol):
    """An exported file, or a network, that can be run: named arrays in, named arrays out."""

    #: Name and version of what runs it.
    runtime: str

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run once. Names, shapes and dtypes are the contract's."""
        ...


class StatefulRunner(Runner, Protocol):
    """A file that keeps its states itself (`--state implicit`)."""

    #: The stream that it is in: no states to hand on, and another object after each reset.
    stream: dict[str, Array]

    def reset(self) -> None:
        """Begin another stream, from states of zero."""
        ...


class Operator(msgspec.Struct, frozen=True):
    """Time of one node, or of all nodes of a kind: milliseconds and calls per pass."""

    kind: str
    name: str | None
    ms: float
    calls: int


class Profile(msgspec.Struct, frozen=True):
    """Time by operator, slowest first; an operator is counted without those it calls, a module with them."""

    passes: int
    kinds: tuple[Operator, ...]
    nodes: tuple[Operator, ...]


class Session(Protocol):
    """A model ready to run, its tensors in place."""

    runtime: str

    def run(self) -> Any:
        """Do one pass as an app does: pixels in, the states fed back; return the answer, which the next overwrites."""
        ...

    def profile(self, passes: int) -> Profile | None:
        """Return the times of its operators, or None where the runtime's Python does not tell."""
        ...


@dataclass(frozen=True)
class Converter:
    """A format: what it can do, and the functions that do it.

    What it can do is told without importing a library. Each function is imported when it is called, from a module of
    the format's folder in `converters/`: `convert` from convert.py, `quantize` from quantize.py, `check` and `load`
    from runtime.py, `session` from session.py. All raise ExportError naming the extra that is missing.
    """

    format: Format
    conventions: TensorConventions
    #: What `convert` writes; other precisions are made by `quantize` from the last of these.
    precisions: tuple[str, ...]
    #: How states can be handed on.
    states: tuple[State, ...]
    #: Libraries whose versions belong in the contract.
    libraries: tuple[str, ...]
    #: Takes any number of clips or streams a call, if asked to.
    dynamic_batch: bool = False
    #: Sets outputs apart from what the network goes on with, if asked to.
    gpu_safe: bool = False
    #: A file of this format is a folder.
    is_folder: bool = False
    #: Its runtime takes as many threads as it likes, whatever it is told.
    chooses_threads: bool = False
    #: What a report says of a precision.
    remarks: Mapping[str, str] = field(default_factory=dict)

    def require(self, *modules: str) -> None:
        """Import modules of the format's folder now. Raises ExportError naming the extra that is missing."""
        for module in modules:
            self._module(module)

    def convert(self, model: nn.Module, contract: Contract, out: Path) -> None:
        """Write `model`, a form of tsmzoo.models.wrappers, to `out` with the tensors that `contract` lists."""
        self._call("convert", "convert", model, contract, out)

    def quantize(
        self, source: Path, contract: Contract, feeds: Sequence[dict[str, Array]], out: Path, keep_float: int = 0
    ) -> list[tuple[str, float]]:
        """Write the float file `source` in the precision of `contract` to `out`.

        `feeds` are the inputs of real clips or streams, step by step (int8). With `keep_float` that many operators
        stay float, and what each costs is returned, the kept ones first: by how much of their range the logits'
        error falls without it.
        """
        costs: list[tuple[str, float]] = self._call("quantize", "quantize", source, contract, feeds, out, keep_float)
        return costs

    def check(self, path: Path, contract: Contract) -> tuple[list[str], list[str]]:
        """Check the file without running it; return what was found to hold, and advice.

        Advice is what keeps the file from a phone's accelerator, or what it needs there, a sentence each.

        Raises ArtifactError if the file, or the copy of the contract in it, and `contract` disagree, or
        a rule of the format is broken.
        """
        found: tuple[list[str], list[str]] = self._call("runtime", "check", path, contract)
        return found

    def load(self, path: Path, contract: Contract, threads: int | None = None) -> Runner:
        """Return the file ready to run, with `threads` threads; default: as many as the runtime likes.

        Raises ArtifactError if the runtime rejects the file.
        """
        runner: Runner = self._call("runtime", "load", path, contract, threads)
        return runner

    def session(self, path: Path, contract: Contract, threads: int) -> Session:
        """Return the file ready to be timed. Raises ArtifactError if the runtime rejects it."""
        session: Session = self._call("session", "session", path, contract, threads)
        return session

    def _module(self, name: str) -> Any:
        try:
            return importlib.import_module(f"tsmzoo.converters.{self.format}.{name}")
        except ModuleNotFoundError as error:
            raise self._missing(error) from None

    def _call(self, module: str, function: str, *arguments: object) -> Any:
        try:
            return getattr(self._module(module), function)(*arguments)
        except ModuleNotFoundError as error:  # of what a function imports itself
            raise self._missing(error) from None

    def _missing(self, error: ModuleNotFoundError) -> ExportError:
        return ExportError(
            f"{self.format} needs {error.name}, which is not installed: pip install 'tsmzoo[{self.format}]'"
        )


def converter_of(format_: Format) -> Converter:
    """Return the converter of `format_`; none of its libraries is imported yet."""
    converter: Converter = importlib.import_module(f"tsmzoo.converters.{format_}").CONVERTER
    return converter


def formats_that(can: Callable[[Converter], bool]) -> str:
    """Return the names of the formats that can do something, for an error."""
    return " or ".join(format_ for format_ in Format if can(converter_of(format_)))


def open_artifact(path: Path) -> tuple[Contract, Converter]:
    """Return the contract and the converter of an exported file whose digest is still the contract's.

    Raises ArtifactError if the file was changed since or its contract contradicts itself, or ExportError if its
    extra is missing.
    """
    converter = converter_of(format_of(path))
    contract = store.opened(path)
    check_consistent(path, contract)
    with quiet():
        converter.require("runtime")
    return contract, converter
