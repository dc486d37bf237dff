"""Recipes of the project, and recipes that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsmzoo import registry
from tsmzoo.errors import RegistryError
from tsmzoo.formats import Format
from tsmzoo.registry import paths, recipes

ZOO = registry.load()


@pytest.mark.parametrize("path", sorted((paths.DATA / "recipes" / "eval").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_protocol_is_read_and_used(path: Path) -> None:
    assert recipes.protocol(path.stem).views > 0
    ours = any(result.protocol == path.stem for entry in ZOO.models for result in entry.results)
    # For models without figures: a user's own, and I3D.
    assert ours or path.stem.startswith(("dense_center", "mm_i3d"))


@pytest.mark.parametrize(("name", "format_"), [*((f, f) for f in Format), ("android", "tflite"), ("ios", "coreml")])
def test_every_target_is_read(name: str, format_: str) -> None:
    target = recipes.target(name)
    assert target.format == format_
    assert target.precision in target.tolerance
    assert target.tolerance["fp32"] <= 1e-4
    assert target.steps >= 16


@pytest.mark.parametrize(("read", "kind"), [(recipes.protocol, "eval"), (recipes.target, "export")])
@pytest.mark.parametrize("content", [None, "a: [", "[]", "views: many", "- 1", ""])
def test_recipe_that_is_wrong(
    read: Callable[[str], Any], kind: str, content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recipes, "RECIPES", tmp_path)
    path = tmp_path / kind / "x.yaml"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    with pytest.raises(RegistryError) as caught:
        read("x" if kind == "eval" else str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
