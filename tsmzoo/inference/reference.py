"""A reference to a model that any process can open, and opening it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from tsmzoo.artifact.store import read_contract
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.checks import check_fields
from tsmzoo.errors import ZooError
from tsmzoo.formats import is_artifact
from tsmzoo.inference.model import Model, open_file, warnings
from tsmzoo.registry import Classes, Entry, Registry, ShiftName, with_classes

if TYPE_CHECKING:
    from tsmzoo.weights.load import Network


#: Frames and side of an input, whose upper bound is its memory (`Entry.too_large`).
Frames = Annotated[int, msgspec.Meta(ge=1)]
Size = Annotated[int, msgspec.Meta(ge=32)]


@dataclass(frozen=True)
class ModelReference:
    """An exported file, or a model's id and its weights, in plain values, so that any process can open it."""

    model: str
    weights: str | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    weights_format: str | None = None
    shift: ShiftName | None = None
    allow_shift_mismatch: bool = False
    #: Classes of the weights and their names, if they are not the model's own.
    classes: Classes | None = None
    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    #: Frames and side of the input, if they are not the model's own.
    frames: Frames | None = None
    size: Size | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        own = {"classes": self.classes, "labels": self.labels, "shift": self.shift}
        given = [name for name, value in own.items() if value is not None]
        if given and self.weights is None and not self.is_file:
            names = " and ".join(given)
            raise ZooError(f"{names}: of a checkpoint of your own; give it as weights, or leave out {names}")

    @property
    def is_file(self) -> bool:
        return is_artifact(self.model)

    def adapted(self, zoo: Registry) -> Registry:
        """Return `zoo` with these classes in place of the model's own.

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
        threads: int | None = None,
        progress: Progress = silent,
        notify: Notify = silent,
    ) -> Model:
        """Return the model, ready to run.

        `notify` gets a line about whatever makes its answers doubtful. Raises ArtifactError, DownloadError or
        CheckpointError, and ZooError if weights or another input are given to a file, which holds its own.
        """
        if self.is_file:
            given = {
                "--weights": self.weights,
                "--weights-format": self.weights_format,
                "--shift": self.shift,
                "--allow-shift-mismatch": self.allow_shift_mismatch or None,
                "--classes": self.classes,
                "--labels": self.labels,
                "--frames": self.frames,
                "--size": self.size,
            }
            if names := [name for name, value in given.items() if value is not None]:
                raise ZooError(
                    f"{self.model} holds its own weights; leave out {' and '.join(names)}, or give a model's id"
                )
            model = open_file(Path(self.model), threads)
        else:
            from tsmzoo.inference.torch_runner import torch_model  # torch, which no file needs

            zoo = self.adapted(zoo)
            network = self.load_network(resized(zoo.find(self.model), self.frames, self.size), progress, notify)
            model = torch_model(zoo, network, threads)
        for warning in warnings(model.contract.model, model.contract):
            notify(warning)
        return model

    def load_network(
        self,
        entry: Entry,
        progress: Progress = silent,
        notify: Notify = silent,
    ) -> Network:
        """Return the network of `entry` with these weights. Raises DownloadError or CheckpointError."""
        from tsmzoo.weights.load import load_network

        return load_network(
            entry,
            self.weights,
            seed=self.seed,
            weights_format=self.weights_format,
            shift=self.shift,
            allow_shift_mismatch=self.allow_shift_mismatch,
            progress=progress,
            notify=notify,
        )


def frames_of(entry: Entry, frames: int | None) -> int | None:
    """Return the frames that a user gives a clip. Raises ZooError if an online model is given several."""
    if frames is not None and entry.mode == "online" and frames != 1:
        raise ZooError(f"{entry.id} is online and takes one frame a step; leave out --frames")
    return frames


def resized(entry: Entry, frames: int | None, size: int | None) -> Entry:
    """Return `entry` with other frames or another size; an online model keeps its one frame a step.

    Raises ZooError if no memory would hold that input.
    """
    if entry.mode == "online":
        frames = None
    entry = msgspec.structs.replace(
        entry, frames=entry.frames if frames is None else frames, size=entry.size if size is None else size
    )
    if entry.too_large:
        raise ZooError(f"{entry.id}: {entry.too_large}")
    return entry
