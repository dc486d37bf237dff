"""Load the network of a registry entry with published, local or random weights, and record which."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from torch import nn

from tsmzoo import models, registry
from tsmzoo.artifact.contract import Checkpoint, Contract
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.errors import ArtifactError, CheckpointError, DownloadError, RegistryError
from tsmzoo.registry import Entry, Registry, ShiftName
from tsmzoo.registry.paths import cache_dir
from tsmzoo.system import files
from tsmzoo.weights import download, tensorflow
from tsmzoo.weights.checkpoint import load
from tsmzoo.weights.checkpoint_file import find_file


@dataclass(frozen=True)
class Network:
    """A backbone in evaluation mode, and the origin of its weights."""

    entry: Entry
    backbone: nn.Module
    weights: Literal["published", "local", "random"]
    checkpoint: Checkpoint | None = None
    seed: int | None = None
    #: The user's own checkpoint.
    path: Path | None = None


def load_network(
    entry: Entry,
    weights: str | None = None,
    *,
    seed: int = 0,
    weights_format: str | None = None,
    shift: ShiftName | None = None,
    allow_shift_mismatch: bool = False,
    progress: Progress = silent,
    notify: Notify = silent,
) -> Network:
    """Build the network of `entry`.

    `weights` is the path of a checkpoint, or "random" (by `seed`); default: the published file, downloaded if it is not
    in the cache. `weights_format`, `shift` and `allow_shift_mismatch` are those of `checkpoint.load`. `notify` gets
    notes for the user. Raises DownloadError or CheckpointError.
    """
    if weights == "random" and shift is not None:
        raise CheckpointError("random weights were trained with no shift; leave out --shift")
    if weights == "random":
        return Network(entry, models.build(entry, seed=seed), "random", seed=seed)
    published = entry.filename or "" if weights is None else ""
    if published.endswith((tensorflow.DATA, ".tar.gz")) and find_spec("tensorflow") is None:
        raise CheckpointError(  # before half a minute of download
            f"{entry.id}: its checkpoint is TensorFlow's, which is not installed: pip install 'tsmzoo[tensorflow]'"
        )
    path = download.fetch(entry, progress=progress, notify=notify) if weights is None else Path(weights)
    backbone = models.build(entry)
    loaded = load(
        backbone,
        entry,
        path,
        weights_format=weights_format,
        shift=shift or (entry.said_shift if weights is None else None),
        allow_shift_mismatch=allow_shift_mismatch,
    )
    for note in loaded.notes:
        notify(f"note: {path}: {note}")
    checkpoint = Checkpoint(
        sha256=loaded.sha256,
        format=loaded.format,
        file=find_file(path).name,
        url=entry.urls[0] if weights is None and entry.urls else None,
        shift_mismatch=loaded.shift_mismatch,
        shift=loaded.shift,
    )
    return Network(
        entry, backbone, "published" if weights is None else "local", checkpoint, path=path if weights else None
    )


def record_checkpoint_path(checkpoint: Checkpoint, path: str) -> None:
    """Record the path of a local checkpoint in the cache, for `recorded_checkpoint_path`; no cache, no record."""
    _record_path(checkpoint.sha256, find_file(Path(path)))


def recorded_checkpoint_path(checkpoint: Checkpoint) -> str | None:
    """Return the path of a local checkpoint when it was last exported, if the file still exists."""
    path = _recorded_path(checkpoint.sha256)
    return None if path is None else str(path)


def record_registry_path(contract: Contract, path: Path) -> None:
    """Record in the cache which registry has the model of an exported file, for `with_model_of`."""
    _record_path(f"registry-{contract.sha256}", path)


def with_model_of(zoo: Registry, artifact: Path, contract: Contract, *, replace: bool) -> tuple[Registry, Path | None]:
    """Return `zoo` with the model of an exported file added, and the registry that the model comes from.

    The latter is None if `zoo` has the model; else it is `registry.yaml` in the file's folder, or the registry of its
    export. Only this model is taken from it; with `replace` it replaces another model of the same id in `zoo`. Raises
    ArtifactError if there is no such model.
    """
    if _has_model_of(zoo, contract) or (contract.model in zoo.by_id and not replace):
        return zoo, None
    for path in (artifact.absolute().parent / "registry.yaml", _recorded_path(f"registry-{contract.sha256}")):
        if path is not None and os.path.isfile(path):
            with suppress(RegistryError):  # it may be anything of that name
                if _has_model_of(other := registry.load(path), contract):
                    return registry.with_entry(zoo, other, contract.model), path
    if contract.model not in zoo.by_id:
        raise ArtifactError(
            f"{artifact}: is of {contract.model!r}, which is no model of tsmzoo's own; give the registry that it was "
            "exported with: --registry FILE"
        )
    return zoo, None


def _has_model_of(zoo: Registry, contract: Contract) -> bool:
    """Say whether `zoo` has the model of a file, with the same published weights if it was made from those."""
    entry = zoo.by_id.get(contract.model)
    if entry is None or contract.weights != "published" or contract.checkpoint is None:
        return entry is not None
    return entry.sha256 in (None, contract.checkpoint.sha256)


def _record_path(name: str, path: Path) -> None:
    with suppress(OSError, DownloadError):  # DownloadError: there is no cache
        place = cache_dir() / "local" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():  # which would be followed
            place.unlink()
        files.write(place, os.fsencode(path.resolve()))


def _recorded_path(name: str) -> Path | None:
    """Return the recorded path, if the file still exists."""
    with suppress(OSError, ValueError, DownloadError):  # ValueError: a NUL in it
        path = Path(os.fsdecode(files.read(cache_dir() / "local" / name)))
        return path if path.is_file() else None
    return None
