"""Start-up: which modules each short command loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Of tsmzoo's own modules, besides those of the command line.
ALWAYS = {"cli", "errors", "formats", "streams", "terminal", "text"}
ZOO = ALWAYS | {"cache", "files", "listing", "registry"}
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
