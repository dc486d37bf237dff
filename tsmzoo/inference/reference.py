"""A reference to a model that any process can open, and opening it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from tsmzoo import registry as registries
from tsmzoo.artifact.contract import Contract, check_consistent
from tsmzoo.artifact.store import read_contract
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.checks import check_fields
from tsmzoo.errors import UsageError, ZooError
from tsmzoo.formats import is_artifact, is_saved
from tsmzoo.inference.model import Model, open_file, warnings
from tsmzoo.registry import Classes, Entry, Registry, ShiftName, with_classes
from tsmzoo.text import CELL, one_line

if TYPE_CHECKING:
    from tsmzoo.weights.load import Network


#: Frames and side of an input, whose upper bound is its memory (`Entry.too_large`).
Frames = Annotated[int, msgspec.Meta(ge=1)]
Size = Annotated[int, msgspec.Meta(ge=32)]


@dataclass(frozen=True)
class ModelReference:
    """An exported file, or a model's id and its weights, in plain values, so that any process can open it.

    Attributes:
        model: An id, an alias, or the path of a file that `export` wrote, which takes none of the rest.
        weights, seed, weights_format, shift, allow_shift_mismatch, classes, labels, frames, size: As in `load`.

    Examples:
        >>> mine = tsmzoo.ModelReference("tsm_mbv2_motion", weights="random", frames=4)
        >>> mine.given
        ['weights', 'frames']
    """

    model: str
    _: KW_ONLY
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
        own = listed(name for name in self.given if name in ("classes", "labels", "shift"))
        if own and self.weights is None and not (self.is_file or is_saved(self.model)):
            raise UsageError(f"{own}: of a checkpoint of your own; give it as `weights`, or leave out {own}")

    @property
    def is_file(self) -> bool:
        return is_artifact(self.model)

    @property
    def given(self) -> list[str]:
        """Names of what is given beside the model; a seed says nothing of itself."""
        return [
            field.name
            for field in fields(self)
            if field.name not in ("model", "seed") and getattr(self, field.name) != field.default
        ]

    def check_file(self) -> None:
        """Raise ZooError if more than its path is given of a file."""
        if self.is_file and self.given:
            names = " and ".join("--" + name.replace("_", "-") for name in self.given)
            raise ZooError(f"{self.model} holds its own weights; leave out {names}, or give a model's id")

    def adapted(self, zoo: Registry) -> Registry:
        """Return `zoo` with these classes in place of the model's own.

        Raises RegistryError or ArtifactError.
        """
        if self.is_file:
            contract = read_contract(Path(self.model))
            return with_classes(zoo, contract.model, contract.classes, contract.labels)
        return with_classes(zoo, self.model, self.classes, self.labels)

    def open(
        self, zoo: Registry, *, threads: int | None = None, progress: Progress = silent, notify: Notify = silent
    ) -> Model:
        """Return the model, ready to run.

        `notify` gets a line about whatever makes its answers doubtful. Raises ArtifactError, DownloadError or
        CheckpointError, and ZooError if weights or another input are given to a file, which holds its own.
        """
        self.check_file()
        if self.is_file:
            model = open_file(Path(self.model), threads)
        else:
            from tsmzoo.inference.torch_runner import torch_model  # torch, which no file needs

            zoo = self.adapted(zoo)
            network = self.load_network(resized(zoo.find(self.model), self.frames, self.size), progress, notify)
            model = torch_model(zoo, network, threads)
        for warning in warnings(model.contract.model, model.contract):
            notify(warning)
        return model

    def load_network(self, entry: Entry, progress: Progress = silent, notify: Notify = silent) -> Network:
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


def open_reference(
    reference: ModelReference, registry: Path | None, *, threads: int | None, progress: Progress, notify: Notify
) -> Model:
    """Open a model of tsmzoo's registry with the one at `registry` on top, or a file, whose contract says as much.

    Raises RegistryError, and as `ModelReference.open` does.
    """
    zoo = Registry() if reference.is_file and registry is None else registries.load(registry)
    if not reference.is_file:
        frames_of(zoo.find(reference.model), reference.frames)
    opened = reference.open(zoo, threads=threads, progress=progress, notify=notify)
    return replace(opened, registry_path=None if registry is None else registry.absolute())


def referred(model: str | Path | Model | ModelReference) -> Model | ModelReference:
    """Return a name, a path or an address on the hub as a reference to what is here, and a model as it is.

    Raises UsageError if it is none of these, DownloadError if the hub does not give the file.
    """
    if isinstance(model, str | Path):
        return ModelReference(here(str(model)))
    if isinstance(model, ModelReference):
        return replace(model, model=here(model.model))
    if isinstance(model, Model):
        return model
    raise UsageError(f"`model` cannot be {one_line(repr(model), CELL)}: give a name, a file or what load returned")


def here(name: str) -> str:
    """Return the local path of `hf://USER/REPO/FILE[@REVISION]`, fetched if need be; any other name as it is.

    Whoever opens it compares it with its contract's digest. Raises DownloadError.
    """
    if not name.startswith("hf://"):
        return name
    from tsmzoo.weights import hub

    return str(hub.fetch_artifact(name))


def listed(names: Iterable[str]) -> str:
    """Return names of arguments as messages have them."""
    return " and ".join(f"`{name}`" for name in names)


def registry_of_file(
    zoo: Registry, artifact: Path, own: Sequence[Path], notify: Notify = silent, contract: Contract | None = None
) -> Registry:
    """Return `zoo`, which holds the user's `own` registries, with the model of an exported file.

    Where there are none, the one that the file was exported with comes before tsmzoo's; `notify` gets a line about it.
    `contract` is by default the one beside the file. Raises ArtifactError.
    """
    from tsmzoo.weights.load import with_model_of  # torch, which no file needs

    contract = contract or read_contract(artifact)
    check_consistent(artifact, contract)  # before it is asked whose it is
    zoo, path = with_model_of(zoo, artifact, contract, replace=not own)
    if path is not None:
        notify(f"note: {artifact}: is of {contract.model}, as it stands in {path}")
    return zoo


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
    if size not in (None, entry.size):
        entry = msgspec.structs.replace(entry, size=size, resize=None)
    if frames is not None:
        entry = msgspec.structs.replace(entry, frames=frames)
    if entry.too_large:
        raise ZooError(f"{entry.id}: {entry.too_large}")
    return entry
