"""The interface between the formats and everything else: what a converter offers, what a runner does."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from tsmzoo.errors import ExportError
from tsmzoo.formats import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from tsmzoo.artifact.contract import Contract, DType, Layout
    from tsmzoo.typing import Array
from typing import TYPE_CHECKING

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract, check_consistent
from tsmzoo.formats import format_of
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

    def reset(self) -> None:
        """Begin anew, from states of zero."""
        ...


class Converter(Protocol):
    """A module of `converters/`."""

    frame_layout: Layout
    clip_layout: Layout
    #: What an input of bytes is.
    pixel_type: Literal["tensor", "image"]
    #: The name of a packed state's input.
    packed_state: str
    #: What `convert` writes; other precisions are made by `quantise` from the last of these.
    precisions: tuple[str, ...]
    #: Libraries whose versions belong in the contract.
    libraries: tuple[str, ...]

    def pixel_dtype(self, mode: str) -> DType:
        """Return the type of `frame` (online) or `clip` (offline) where preprocessing is embedded."""
        ...

    def convert(self, model: nn.Module, contract: Contract, out: Path) -> None:
        """Write `model`, a form of tsmzoo.models.wrappers, to `out` with the tensors that `contract` lists."""
        ...

    def quantise(
        self, source: Path, contract: Contract, feeds: Sequence[dict[str, Array]], out: Path, keep_float: int = 0
    ) -> list[tuple[str, float]]:
        """Write the float file `source` in the precision of `contract` to `out`.

        `feeds` are the inputs of real clips or streams, step by step (int8). With `keep_float` that many operators
        stay float, and what each costs is returned, the kept ones first: by how much of their range the logits'
        error falls without it.
        """
        ...

    def check(self, path: Path, contract: Contract) -> tuple[list[str], list[str]]:
        """Check the file without running it; return what was found to hold, and advice.

        Advice is what keeps the file from a phone's accelerator, or what it needs there, a sentence each.

        Raises ArtifactError where the file, or the copy of the contract in it, and `contract` disagree, or
        a rule of the format is broken.
        """
        ...

    def load(self, path: Path, contract: Contract, threads: int | None = None) -> Runner:
        """Return the file ready to run.

        Without `threads` the runtime takes as many as it likes; Core ML always does.

        Raises ArtifactError where the runtime rejects the file.
        """
        ...


def load_converter(format_: Format) -> Converter:
    """Import the converter of `format_`. Raises ExportError naming the extra that is missing."""
    try:
        return cast("Converter", importlib.import_module(f"tsmzoo.converters.{format_}"))
    except ModuleNotFoundError as error:
        raise missing_extra(format_, error) from None


def missing_extra(format_: Format, error: ModuleNotFoundError) -> ExportError:
    """Return the error that names the extra to install."""
    return ExportError(f"{format_} needs {error.name}, which is not installed: pip install 'tsmzoo[{format_}]'")


def open_artifact(path: Path) -> tuple[Contract, Converter]:
    """Return the contract and the converter of an exported file whose digest is still the contract's.

    Raises ArtifactError where the file was changed since or its contract contradicts itself, or ExportError where its
    extra is missing.
    """
    format_ = format_of(path)
    contract = store.opened(path)
    check_consistent(path, contract)
    with quiet():
        return contract, load_converter(format_)
