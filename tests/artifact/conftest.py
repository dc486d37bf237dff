"""Fixtures of the tests of exported files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from tests.artifact.made import FORMATS, SERVER, SIDE, WRITERS, Ask, contract_of, write_beside


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function from a format to its file, which nobody may change."""
    made: dict[str, Path] = {}

    def original(format_: str) -> Path:
        if format_ not in made:
            path = tmp_path_factory.mktemp(format_) / f"toy{FORMATS[format_]}"
            WRITERS[format_](path, contract_of(format_))
            write_beside(path, msgspec.to_builtins(contract_of(format_)))
            made[format_] = path
        return made[format_]

    return original


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images: a green one, a red one, a red one."""
    folder = tmp_path_factory.mktemp("frames")
    for number, colour in enumerate([(0, 200, 0), (255, 0, 0), (255, 0, 0)]):
        Image.new("RGB", (SIDE, SIDE), colour).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def ask() -> Iterator[Ask]:
    """Give a function that runs a command in another process and returns status, stdout, stderr and a bug's name."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def command(*arguments: str | Path) -> tuple[int, str, str, str | None]:
        stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"the process died of {arguments}: {process.wait()}"
        code, out, err, bug = json.loads(line)
        return code, out, err, bug

    yield command
    process.communicate()
    assert process.returncode == 0
