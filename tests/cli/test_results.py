"""The page of JSON results names what the commands print."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tsmzoo.cli import app

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def results() -> Any:
    """Give the module that writes the page."""
    spec = importlib.util.spec_from_file_location("results", DOCS / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(group: Any, path: str = "") -> Iterator[str]:
    """Yield the commands that print JSON."""
    for name in group.list_commands(typer.Context(group)):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, f"{path}{name} ")
        elif any("--json" in parameter.opts for parameter in command.params):
            yield path + name


def test_every_command_is_on_the_page(results: Any) -> None:
    documented = {words.partition(" -")[0].removesuffix(" MODEL") for words in results.RESULTS}
    assert set(commands(typer.main.get_command(app))) == documented


def test_the_page_is_current(results: Any) -> None:
    """`make docs` writes it anew."""
    assert f"]]] -->\n{results.page()}\n<!-- [[[end" in (DOCS / "results.md").read_text(encoding="utf-8")
