"""What is run: a model of the registry in torch, or an exported file; told in plain values, opened where it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import Runner, open_artifact
from tsmzoo.artifact.store import read_contract
from tsmzoo.errors import ZooError
from tsmzoo.formats import is_artifact
from tsmzoo.inference.describe import describe
from tsmzoo.inference.torch_runner import TorchRunner
from tsmzoo.registry import Entry, Registry, ShiftName, with_classes
from tsmzoo.system.quiet import quiet
from tsmzoo.weights.http import Progress
from tsmzoo.weights.load import Network, load_network, weight_warnings


@dataclass(frozen=True)
class ModelReference:
    """An exported file, or a model's id, and which weights it takes; another process can open the same."""

    model: str
    weights: str | None = None
    seed: int = 0
    weights_format: str | None = None
    shift: ShiftName | None = None
    allow_shift_mismatch: bool = False
    #: Of the weights, where they are not the model's own; and their names.
    classes: int | None = None
    labels: tuple[str, ...] | None = None

    @property
    def is_file(self) -> bool:
        return is_artifact(self.model)

    def adapted(self, zoo: Registry) -> Registry:
        """Return `zoo` with the classes that this has, where they are others than the model's.

        Raises RegistryError or ArtifactError.
        """
        if self.is_file:
            contract = read_contract(Path(self.model))
            return with_classes(zoo, contract.model, contract.classes, contract.labels)
        return with_classes(zoo, self.model, self.classes, self.labels)

    def open(
        self,
        zoo: Registry,
        *,
        frames: int | None = None,
        size: int | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> tuple[Runner, Contract]:
        """Return it ready to run, and its contract; a model of the registry at another T or size where given.

        `notify` is told what makes its answers doubtful. Raises ArtifactError, DownloadError or CheckpointError,
        and ZooError where weights are given to a file, which holds its own.
        """
        if self.is_file:
            given = {
                "--weights": self.weights,
                "--weights-format": self.weights_format,
                "--shift": self.shift,
                "--allow-shift-mismatch": self.allow_shift_mismatch or None,
                "--classes": self.classes,
                "--labels": self.labels,
            }
            if names := [name for name, value in given.items() if value is not None]:
                raise ZooError(
                    f"{self.model} holds its own weights; leave out {' and '.join(names)}, or give a model's id"
                )
            runner, contract = open_file(Path(self.model), threads)
            _warn(contract.model, contract, notify)
            return runner, contract
        zoo = self.adapted(zoo)
        entry = resized(zoo.find(self.model), frames, size)
        network = load_network(
            entry,
            self.weights,
            seed=self.seed,
            weights_format=self.weights_format,
            shift=self.shift,
            allow_shift_mismatch=self.allow_shift_mismatch,
            progress=progress,
            notify=notify,
        )
        contract = describe(zoo, network, dynamic_batch=True)
        _warn(entry.id, network, notify)
        return TorchRunner(network, contract), contract


def _warn(model: str, made_of: Network | Contract, notify: Callable[[str], None]) -> None:
    for warning in weight_warnings(model, made_of):
        notify(warning)


def resized(entry: Entry, frames: int | None, size: int | None) -> Entry:
    """Return `entry` at another number of frames or size; an online model always takes a frame a step.

    Raises ZooError where no memory would hold that.
    """
    if entry.mode == "online":
        frames = None
    entry = msgspec.structs.replace(entry, frames=frames or entry.frames, size=size or entry.size)
    if entry.too_large:
        raise ZooError(f"{entry.id}: {entry.too_large}")
    return entry


def check_file(path: Path) -> None:
    """Check an exported file against its contract, and run nothing. Raises ArtifactError."""
    contract, converter = open_artifact(path)
    with quiet():
        converter.check(path, contract)


def open_file(path: Path, threads: int | None = None) -> tuple[Runner, Contract]:
    """Return an exported file, checked against its contract, ready to run. Raises ArtifactError."""
    contract, converter = open_artifact(path)
    with quiet():
        converter.check(path, contract)
        runner = converter.load(path, contract, threads)
    return runner, contract
