"""Start-up: which modules each short command loads, and that YAML is read as PyYAML reads it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tsmzoo import paths
from tsmzoo.parsing import parse

#: Of tsmzoo's own modules, besides those of the command line.
ALWAYS = {"cli", "errors", "formats", "streams", "terminal", "text"}
ZOO = ALWAYS | {"cache", "files", "listing", "parsing", "paths", "registry"}
#: What those of others bring along.
COMPANIONS = {"annotated_doc", "cython_runtime", "shellingham", "typing_extensions"}
#: What each may load, ours and others'.
COMMANDS: dict[str, tuple[set[str], set[str]]] = {
    "--version": (ALWAYS, {"typer"}),
    "--help": (ALWAYS, {"typer"}),
    "bench --help": (ALWAYS, {"typer"}),
    "list": (ZOO, {"typer", "msgspec", "yaml"}),
    "list --all --json": (ZOO, {"typer", "msgspec", "yaml"}),
    "info tsm_r50_sthv2": (ZOO | {"card", "recipe"}, {"typer", "msgspec", "yaml"}),
}
SCRIPT = """
import sys
before = set(sys.modules)
sys.argv = ["tsmzoo", *sys.argv[1:]]
from tsmzoo.cli import main
try:
    main()
finally:
    print("\\n", *(set(sys.modules) - before), file=sys.stderr)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_modules_of_a_command(command: str) -> None:
    """A module that is missing here is no fault; one that is new makes every start slower, and must be meant."""
    words = [sys.executable, "-c", SCRIPT, *command.split()]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    loaded = result.stderr.splitlines()[-1].split()
    ours, others = COMMANDS[command]
    assert {name.split(".")[1] for name in loaded if name.startswith("tsmzoo.")} <= ours
    foreign = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"tsmzoo", "__main__"}
    assert {name for name in foreign if not name.startswith("_")} <= others | COMPANIONS
    assert not {"asyncio", "http", "multiprocessing", "email", "unittest"} & set(loaded)


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
        *("", "# nothing", "---\n", "--- a\n--- b\n", "a", "'1'", "1", "~", "2001-01-01", "2001-02-30", "0x1F", ".inf"),
        *("[1, '1', 1.5, true, null, 2001-01-01T00:00:00Z, 0o7, 010, '', =, <<]", "{a: 1, a: 2}", "{1: a, null: b}"),
        *("a: &x [1]\nb: *x", "a: *x", "a: !!str 1", "a: !foo 1", "<<: {a: 1}\nb: 2", "a: {<<: {b: 1}}", "? [1]\n: 2"),
        *(
            "a: |\n  1\n  2\n",
            "a: >-\n  true\n",
            "a: [",
            "a: }",
            "\t",
            "a: 'b",
            "a:\n- b\n - c",
            "{? a, ? b}",
            "? {}\n: 1",
        ),
        *("a: \u00e9\u20ac", "a: \x07", "- - - 1", "{[1]: 2}", "a: !!binary aGk=", "a: !!set {b, c}", "&a b: 1\nc: *a"),
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


@given(values, st.booleans())
def test_what_is_written_is_read(value: Any, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert repr(parse(text)) == repr(yaml.safe_load(text))
