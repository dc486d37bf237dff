"""From an entry to a network with weights: published, a local file, or random; and the record of which."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from torch import nn

from tsmzoo import models, registry
from tsmzoo.artifact.contract import Checkpoint, Contract
from tsmzoo.errors import ArtifactError, CheckpointError, DownloadError, RegistryError
from tsmzoo.registry import Entry, Registry, ShiftName
from tsmzoo.registry.paths import cache_dir
from tsmzoo.system import files
from tsmzoo.weights import download
from tsmzoo.weights.checkpoint import load
from tsmzoo.weights.http import Progress
from tsmzoo.weights.reading import located


@dataclass(frozen=True)
class Network:
    """A backbone in evaluation mode and where its weights come from."""

    entry: Entry
    backbone: nn.Module
    weights: Literal["published", "local", "random"]
    checkpoint: Checkpoint | None = None
    seed: int | None = None


def load_network(
    entry: Entry,
    weights: str | None = None,
    *,
    seed: int = 0,
    weights_format: str | None = None,
    shift: ShiftName | None = None,
    allow_shift_mismatch: bool = False,
    progress: Progress | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Network:
    """Build the network of `entry`.

    `weights` is None for the published file, which is downloaded where the cache lacks it, "random",
    or the path of a checkpoint, `shift` what that was trained with. `notify` is told what of a file with several
    networks was taken. Raises DownloadError or CheckpointError.
    """
    if weights == "random" and shift is not None:
        raise CheckpointError("random weights were trained with no shift; leave out --shift")
    if weights == "random":
        return Network(entry, models.build(entry, seed=seed), "random", seed=seed)
    if weights is None and entry.format == "deepmind-tf" and find_spec("tensorflow") is None:
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
        file=located(path).name,
        url=entry.urls[0] if weights is None and entry.urls else None,
        shift_mismatch=loaded.shift_mismatch,
        shift=loaded.shift,
    )
    return Network(entry, backbone, "published" if weights is None else "local", checkpoint)


def warnings(model: str, made_of: Network | Contract) -> Iterator[str]:
    """Yield what makes the answers of `model` doubtful: random weights, a shift it was not trained with."""
    if made_of.weights == "random":
        yield f"warning: the weights of {model} are RANDOM (seed {made_of.seed}); its answers mean nothing"
    if made_of.checkpoint and made_of.checkpoint.shift_mismatch:
        yield f"warning: {model} holds a BIDIRECTIONAL checkpoint; its answers are not the published ones"


def remember(checkpoint: Checkpoint, path: str) -> None:
    """Note in the cache where a local checkpoint lies, for `recall`; a cache that cannot be written forgets."""
    _note(checkpoint.sha256, located(Path(path)))


def recall(checkpoint: Checkpoint) -> str | None:
    """Return where a local checkpoint lay when it was last exported, if it still lies there."""
    path = _noted(checkpoint.sha256)
    return None if path is None else str(path)


def remember_registry(contract: Contract, path: Path) -> None:
    """Note in the cache which registry holds the model of an exported file, for `with_model_of`."""
    _note(f"registry-{contract.sha256}", path)


def with_model_of(zoo: Registry, artifact: Path, contract: Contract, *, replace: bool) -> tuple[Registry, Path | None]:
    """Return `zoo` with the model of an exported file, and the registry that it was taken from, if not from `zoo`.

    That is the one in the file's folder, or of its export; of it, this model is taken alone, with `replace` even where
    `zoo` has another of the same id. Raises ArtifactError where there is no such model.
    """
    if _holds(zoo, contract) or (contract.model in zoo.by_id and not replace):
        return zoo, None
    for path in (artifact.absolute().parent / "registry.yaml", _noted(f"registry-{contract.sha256}")):
        if path is not None and os.path.isfile(path):
            with suppress(RegistryError):  # it may be anything of that name
                if _holds(other := registry.load(path), contract):
                    return registry.with_entry(zoo, other, contract.model), path
    if contract.model not in zoo.by_id:
        raise ArtifactError(
            f"{artifact}: is of {contract.model!r}, which is no model of tsmzoo's own; give the registry that it was "
            "exported with: --registry FILE"
        )
    return zoo, None


def _holds(zoo: Registry, contract: Contract) -> bool:
    """Say whether `zoo` has the model of a file, with the weights that it was made from where these are its own."""
    entry = zoo.by_id.get(contract.model)
    if entry is None or contract.weights != "published" or contract.checkpoint is None:
        return entry is not None
    return entry.sha256 in (None, contract.checkpoint.sha256)


def _note(name: str, path: Path) -> None:
    with suppress(OSError, DownloadError):  # DownloadError: there is no cache
        place = cache_dir() / "local" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():  # which would be followed
            place.unlink()
        files.write(place, os.fsencode(path.resolve()))


def _noted(name: str) -> Path | None:
    """Return a file that was noted, if it still lies there."""
    with suppress(OSError, ValueError, DownloadError):  # ValueError: a NUL in it
        path = Path(os.fsdecode(files.read(cache_dir() / "local" / name)))
        return path if path.is_file() else None
    return None
