"""YAML that is deep, that multiplies or that never ends: refused in one line by whoever reads a registry."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tsmzoo import parsing, recipe
from tsmzoo.cli import app
from tsmzoo.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

DEEP = 10_000


def chain(links: int) -> str:
    """Lists, each of which holds the one before by its alias."""
    return "".join(f"a{i}: &a{i} [{f'*a{i - 1}' if i else 1}]\n" for i in range(links))


def merges(links: int) -> str:
    """Mappings that merge the one before, all of them through one that PyYAML comes to first."""
    inner = "".join(f"  a{i}: &a{i} {{{f'<<: *a{i - 1}' if i else 'x: 1'}}}\n" for i in range(links))
    return f"deep:\n{inner}first: {{<<: *a{links - 1}}}\n"


def bomb(entry: str) -> str:
    return "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i} {entry.format(','.join([f'*a{i - 1}'] * 9))}\n" for i in range(1, 30)
    )


HOSTILE = {
    "lists": "[" * DEEP + "]" * DEEP,
    "lists without end": "[" * DEEP,
    "anchored lists": "&a " + "[" * DEEP + "]" * DEEP,
    "an anchor each": "".join(f"&a{i} [" for i in range(DEEP)) + "]" * DEEP,
    "a tag each": "!!seq [" * DEEP + "]" * DEEP,
    "block lists": "".join(" " * i + "-\n" for i in range(1000)) + " " * 1000 + "1",
    "compact block lists": "- " * DEEP + "1",
    "mappings": "{a: " * DEEP + "1" + "}" * DEEP,
    "anchored mappings": "&a " + "{a: " * DEEP + "1" + "}" * DEEP,
    "mappings as keys": "? " * DEEP + "a",
    "flow mappings as keys": "{" * DEEP + "}" * DEEP,
    "a chain of aliases": chain(DEEP),
    "a chain of merges": merges(DEEP),
    "lists that multiply": bomb("[{}]"),
    "mappings that multiply": bomb("{{<<: [{}]}}"),
    "an alias of itself": "models: &a [*a]",
    "a mapping of itself": "&a models: &b {x: *b}",
    "too large": "#" * (parsing.MOST + 1),
    "many values": "[" + "a," * parsing.VALUES + "a]",
    "many pairs of one key": "{" + "a: a," * parsing.VALUES + "}",
    "a number of many digits": "models: " + "9" * 5000,
    "a number to the base of 60": "models: 1" + ":59" * 5000,
    "the same by its tag": "models: !!int 1" + ":59" * 5000,
    "the same as a fraction": "models: !!float 1" + ":59" * 5000,
    "a fraction beyond all": "models: 1" + ":1" * 198 + ".0",
    **{
        f"{tag} of {text!r}": f"models: {tag} {text!r}"
        for tag in (
            "!!int",
            "!!float",
            "!!bool",
            "!!timestamp",
            "!!set",
            "!!omap",
            "!!pairs",
            "!!python/name:os.system",
        )
        for text in ("", "x", "-", "0b", "0x", ".", "_")
        if (tag, text) != ("!!float", "")
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_too_much_is_a_yaml_error(name: str) -> None:
    with pytest.raises((yaml.YAMLError, ValueError)):
        parsing.parse(HOSTILE[name])
    with pytest.raises((yaml.YAMLError, ValueError)):
        parsing.parse(HOSTILE[name].encode())


@pytest.mark.parametrize("make", [lambda n: "[" * n + "]" * n, lambda n: "&a " + "[" * n + "]" * n, chain, merges])
def test_the_last_level_is_read_and_the_next_is_not(make: Callable[[int], str]) -> None:
    """A line of the chains stands in one mapping, and the merges in two."""
    levels = parsing.LEVELS - (make is chain) - 2 * (make is merges)
    assert repr(parsing.parse(make(levels))) == repr(yaml.safe_load(make(levels)))
    with pytest.raises(parsing.TooMuch, match=f"more than {parsing.LEVELS} levels"):
        parsing.parse(make(levels + 1))


aliased = st.recursive(
    st.sampled_from(["1", "a", "~", "*x", "*y", "&x 2", "&y b", "!!str 3", "1.5", "<<"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(inner, max_size=4).map(lambda items: f"&x [{', '.join(items)}]"),
        st.lists(inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"k{i}: {item}" for i, item in enumerate(items)) + "}"
        ),
        inner.map(lambda item: f"{{<<: {item}, z: 1}}"),
        inner.map(lambda item: f"&y {{z: {item}}}"),
    ),
    max_leaves=12,
)


@given(aliased)
@settings(deadline=None)
def test_what_is_accepted_is_what_pyyaml_makes_of_it(text: str) -> None:
    try:
        found = parsing.parse(text)
    except parsing.TooMuch:
        assert re.search(r"&([xy]) .*\*\1", text)  # within what it names; all else is small
        return
    except (yaml.YAMLError, ValueError):
        with pytest.raises((yaml.YAMLError, ValueError)):
            yaml.safe_load(text)
        return
    assert repr(found) == repr(yaml.safe_load(text))


# The commands: in a process of its own, which such files ended


def refused(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "tsmzoo", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.returncode, result.stdout) == (1, ""), result.stderr[-2000:]
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("name", ["anchored lists", "mappings as keys", "mappings that multiply", "a chain of merges"])
def test_a_hostile_registry_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(HOSTILE[name])
    assert f"{path}: is not YAML (more than" in refused("list", "--registry", str(path))


@pytest.mark.parametrize("name", HOSTILE)
def test_any_hostile_registry_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(HOSTILE[name])
    result = CliRunner().invoke(app, ["info", "tsm_r50_sthv2", "--registry", str(path)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {path}: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_any_hostile_recipe_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(HOSTILE[name])
    for read in (recipe.target, recipe.training):
        with pytest.raises(RegistryError) as caught:
            read(str(path))
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_no_recipe(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    for read in (recipe.target, recipe.training):
        with pytest.raises(RegistryError, match="cannot be read"):
            read(str(path))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing"])
def test_what_is_no_file_is_no_registry(kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "own.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    assert f"{path}: cannot be read (" in refused("list", "--registry", str(path))
