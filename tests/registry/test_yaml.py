"""YAML: read as PyYAML reads it; deep, multiplying or endless, refused in one line by whoever reads a registry."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tsmzoo import registry
from tsmzoo.errors import RegistryError
from tsmzoo.registry import paths, recipes
from tsmzoo.registry.bounded_yaml import MAX_BYTES, MAX_LEVELS, MAX_VALUES, parse

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
    "lists that multiply": bomb("[{}]"),
    "mappings with lists that multiply": bomb("{{a: [{}]}}"),
    "an alias of itself": "models: &a [*a]",
    "a mapping of itself": "&a models: &b {x: *b}",
    "too large": "#" * (MAX_BYTES + 1),
    "many values": "[" + "a," * MAX_VALUES + "a]",
    "many pairs of one key": "{" + "a: a," * MAX_VALUES + "}",
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
        parse(HOSTILE[name])
    with pytest.raises((yaml.YAMLError, ValueError)):
        parse(HOSTILE[name].encode())


@pytest.mark.parametrize("make", [lambda n: "[" * n + "]" * n, lambda n: "&a " + "[" * n + "]" * n, chain])
def test_the_last_level_is_read_and_the_next_is_not(make: Callable[[int], str]) -> None:
    """A line of the chains stands in a mapping."""
    levels = MAX_LEVELS - (make is chain)
    assert repr(parse(make(levels))) == repr(yaml.safe_load(make(levels)))
    with pytest.raises(yaml.YAMLError, match=f"more than {MAX_LEVELS} levels"):
        parse(make(levels + 1))


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
        found = parse(text)
    except (yaml.YAMLError, ValueError):
        if not re.search(r"&([xy]) .*\*\1", text):  # PyYAML reads a list in itself; all else is small
            with pytest.raises((yaml.YAMLError, ValueError)):
                yaml.safe_load(text)
        return
    assert repr(found) == repr(yaml.safe_load(text))


def test_merges_do_not_multiply() -> None:
    assert parse(bomb("{{<<: [{}]}}")) == {f"a{i}": {"x": 1} for i in range(30)}
    assert parse(merges(DEEP))["first"] == {"x": 1}
    assert parse(merges(40)) == yaml.safe_load(merges(40))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: *x", "the alias *x has no anchor, line 2"),
        ("a:\n- &x [1, *x]", "the alias *x is inside its anchor, line 2"),
        ("- &x 1\n- &x 2", "a second anchor &x, line 2"),
        ("a: 1\n--- 2", "a second document, line 2"),
        ("a: 1\n? [b]\n: 2", "a list or mapping as a key, line 2"),
        ("<<: 3", "<< merges a mapping or a list of mappings, line 1"),
        ("<<: [{a: 1}, 3]", "<< merges a mapping or a list of mappings, line 1"),
        *((f"a:\n  b: {tag} 1", "without it, line 2") for tag in ("!!int", "!foo", "!", "!!python/name:os.system")),
        ("a: !!set {b, c}", "the tag tag:yaml.org,2002:set is not read"),
    ],
)
def test_an_error_has_its_line(text: str, words: str) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        parse(text)
    assert words in str(caught.value)


def outcome(read: Any, text: str | bytes) -> Any:
    try:
        return read(text)
    except (yaml.YAMLError, ValueError) as error:
        return type(error), str(error).replace('"<byte string>"', "").replace('"<unicode string>"', "")


@pytest.mark.parametrize("path", [*sorted(paths.DATA.glob("recipes/**/*.yaml")), paths.DATA / "registry.yaml"], ids=str)
def test_the_projects_own_files(path: Any) -> None:
    content = path.read_bytes()
    assert parse(content) == yaml.safe_load(content)
    assert repr(parse(content)) == repr(yaml.safe_load(content)), "in type and order, too"


@pytest.mark.parametrize(
    "text",
    [
        *("", "# nothing", "---\n", "a", "'1'", "1", "~", "2001-01-01", "2001-02-30", "0x1F", ".inf"),
        *("[1, '1', 1.5, true, null, 2001-01-01T00:00:00Z, 0o7, 010, '', =, <<]", "{a: 1, a: 2}", "{1: a, null: b}"),
        *("a: &x [1]\nb: *x", "<<: {a: 1}\nb: 2", "a: {<<: {b: 1}}"),
        *(
            "a: |\n  1\n  2\n",
            "a: >-\n  true\n",
            "a: [",
            "a: }",
            "\t",
            "a: 'b",
            "a:\n- b\n - c",
            "{? a, ? b}",
        ),
        *(
            "a: \u00e9\u20ac",
            "a: \x07",
            "- - - 1",
            "&a b: 1\nc: *a",
            "&a b: 1\n*a : 2",
            "a: {<<: [{b: 1, c: 2}, {b: 3}], c: 4}",
        ),
    ],
)
def test_as_pyyaml(text: str) -> None:
    expected = outcome(lambda t: yaml.load(t, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), text)
    found = outcome(parse, text)
    assert repr(found) == repr(expected)


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.dates(),
    st.sampled_from(["yes", "no", "1e3", "1_000", "0b1", "12:30:45", "~", "null", "-", ".", "+.inf", "2001-01-01"]),
)
values = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner))


@settings(max_examples=30)
@given(values, st.booleans())
def test_what_is_written_is_read(value: Any, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert repr(parse(text)) == repr(yaml.safe_load(text))


# The commands: in a process of its own, which such files ended


def refused(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "tsmzoo", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.returncode, result.stdout) == (1, ""), result.stderr[-2000:]
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("name", ["anchored lists", "lists that multiply", "mappings with lists that multiply"])
def test_a_hostile_registry_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(HOSTILE[name])
    assert f"{path}: is not YAML (more than" in refused("list", "--registry", str(path))


@pytest.mark.parametrize("name", HOSTILE)
def test_any_hostile_registry_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(HOSTILE[name])
    with pytest.raises(RegistryError) as caught:
        registry.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_any_hostile_recipe_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(HOSTILE[name])
    for read in (recipes.target, recipes.training):
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
    for read in (recipes.target, recipes.training):
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
