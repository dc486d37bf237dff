"""The command line: its start, its help, and how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tsmzoo import __version__
from tsmzoo.cli import app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="tsmzoo")


def output(*arguments: str) -> str:
    """Return what a command that must succeed prints; it says nothing beside it."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize("program", [["-m", "tsmzoo"], [str(Path(sys.executable).with_name("tsmzoo"))]])
def test_both_ways_to_start(program: list[str]) -> None:
    if program[0] != "-m" and not Path(program[0]).is_file():
        pytest.skip("the package is not installed here")
    command = [sys.executable, *program] if program[0] == "-m" else program
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"tsmzoo {__version__}\n", "")


def test_output_into_a_closed_pipe() -> None:
    """`tsmzoo list | head -1` must not end in a traceback."""
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "tsmzoo", "list", "--all"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["list"], ["info", "tsn_r101_k400"], ["list", "--json"]], ids=" ".join)
def test_output_where_stdout_is_not_utf8(arguments: list[str]) -> None:
    """Tables hold dashes beyond Latin-1, which must not end in a traceback."""
    result = subprocess.run(
        [sys.executable, "-m", "tsmzoo", *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()


# --- help and usage ------------------------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    text = output("--help")
    for command in ("list", "info", "download", "data", "train", "flops", "export", "verify", "eval", "run", "demo"):
        assert f"  {command} " in text
    assert output("-h") == text


@pytest.mark.parametrize("command", ["list", "info", "download", "train", "flops", "export", "verify", "eval", "run"])
def test_every_command_has_help_and_json(command: str) -> None:
    text = output(command, "--help")
    assert "--json" in text
    assert "--registry" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["list", "--nonsense"],
        ["list", "a", "b"],
        ["list", "--family"],
        ["info"],
        ["info", "a", "b"],
        ["--nonsense"],
        ["download"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Error" in result.stderr


def test_no_command_shows_help() -> None:
    result = run()
    assert "list" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("interrupted", [True, False])
def test_ctrl_c_is_one_whatever_a_library_makes_of_it(interrupted: bool) -> None:
    script = (
        "import os, signal, sys\nfrom tsmzoo.cli import _main\n"
        "def app(**_):\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT) if sys.argv[1:] else 0\n"
        "    except KeyboardInterrupt:\n        pass\n"
        "    raise AttributeError('half imported')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n_main.app = app\n_main.main()\n"
    )
    words = ["-c", script, *(["x"] if interrupted else [])]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == (130 if interrupted else 1)
    assert ("half imported" in done.stderr) == (not interrupted)


@pytest.mark.parametrize("words", [[], ["registry"]])
def test_no_arguments_print_the_help_as_it_is_laid_out(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert "\\n" not in result.output
    assert "\nCommands:\n" in result.output
