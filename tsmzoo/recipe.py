"""Recipes: protocols that published figures stand under, and targets of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from tsmzoo import paths
from tsmzoo.errors import RegistryError
from tsmzoo.registry import Loader

RECIPES = paths.DATA / "recipes"


class Protocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a published accuracy was measured, in its publisher's terms (`recipes/eval/<id>.yaml`)."""

    source: str
    sampling: str
    resize: str
    crops: str
    #: Forward passes of the network's clip per video.
    views: int
    aggregation: str
    #: Side of a crop in pixels.
    size: int
    #: Frames of a view; None for the T that the model was trained with.
    frames: int | None = None
    split: str | None = None


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `export` writes unless told otherwise (`recipes/export/<format>.yaml`)."""

    format: str
    precision: str
    preprocess: Literal["embedded", "external"]
    #: Largest error by precision, relative to the range of each output.
    tolerance: dict[str, float]
    #: Frames per stream of a verification.
    steps: int


_T = TypeVar("_T", Protocol, Target)


def protocol(name: str) -> Protocol:
    """Read the evaluation protocol `name`. Raises RegistryError naming file and key."""
    return _read(RECIPES / "eval" / f"{name}.yaml", Protocol)


def target(name: str) -> Target:
    """Read the export target `name`. Raises RegistryError naming file and key."""
    return _read(RECIPES / "export" / f"{name}.yaml", Target)


def _read(path: Path, kind: type[_T]) -> _T:
    try:
        data: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
        return msgspec.convert(data, kind)
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read ({error.strerror}); add the recipe") from None
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise RegistryError(f"{path}: {' '.join(str(error).split())}") from None
