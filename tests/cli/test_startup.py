"""Start-up: which modules each short command loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tsmzoo import registry
from tsmzoo.registry import recipes

#: Of tsmzoo's own modules, besides those of the commands that are not called.
ALWAYS = {"cli", "cli._main", "cli._terminal", "errors", "system", "system.streams", "text"}
ZOO = ALWAYS | {
    *("api", "callbacks", "checks", "catalog", "catalog.listing", "cli._options", "weights", "weights.cache"),
    *("registry", "registry.compiled", "registry.loader", "registry.paths", "registry.schema"),
}
RECIPES = {"registry.recipes", "formats"}
#: Companions of other libraries.
COMPANIONS = {"annotated_doc", "cython_runtime", "shellingham", "typing_extensions"}
#: What each may load, ours and others'.
COMMANDS: dict[str, tuple[set[str], set[str]]] = {
    "--version": (ALWAYS, {"typer"}),
    "bench --help": (ALWAYS | {"cli._options", "cli.bench", "cli.download", "formats"}, {"typer"}),
    "list": (ZOO | {"cli.list"}, {"typer", "msgspec"}),
    "list --all --json": (ZOO | {"cli.list"}, {"typer", "msgspec"}),
    "info tsm_r50_sthv2": (ZOO | RECIPES | {"cli.info", "catalog.info"}, {"typer", "msgspec"}),
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


def loaded(command: str) -> set[str]:
    # Puts copies into the cache.
    registry.load()
    recipes.protocol("mit_sth_fullres_2clip")
    words = [sys.executable, "-c", SCRIPT, *command.split()]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return set(result.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_modules_of_a_command(command: str) -> None:
    """A module that is missing here is no fault; one that is new makes every start slower, and must be meant."""
    modules = loaded(command)
    ours, others = COMMANDS[command]
    assert {name.removeprefix("tsmzoo.") for name in modules if name.startswith("tsmzoo.")} <= ours
    foreign = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"tsmzoo", "__main__"}
    assert {name for name in foreign if not name.startswith("_")} <= others | COMPANIONS
    assert not {"asyncio", "http", "multiprocessing", "email", "unittest"} & modules


@pytest.mark.parametrize("command", ["--help", "export --help"])
def test_help_loads_no_library(command: str) -> None:
    foreign = {name.partition(".")[0] for name in loaded(command)} - sys.stdlib_module_names - {"tsmzoo", "__main__"}
    assert {name for name in foreign if not name.startswith("_")} <= COMPANIONS | {"typer"}
