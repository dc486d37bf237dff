"""Files whose digest is right and whose inside is odd: one line or a right answer, no crash."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.artifact.made import FORMATS, Ask, at, changed, contract_of, copied, put_contract, state_of, write_beside


def leaves(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from leaves(each, (*place, key))


ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    3,
    2**31,
    2**63,
    1e308,
    1e-320,
    "",
    "N",
    "x" * 300,
    "\x1b[2J",
    [],
    {},
    [[]],
)


def contract_fuzz(format_: str, count: int, seed: int, original: Path, folder: Path) -> Iterator[Path]:
    """Yield files whose contracts, within and beside, have odd values of every type at random places."""
    rng = random.Random(seed)
    document = msgspec.to_builtins(contract_of(format_))
    places = list(leaves(document))
    for number in range(count):
        odd = document
        for place in rng.sample(places, rng.choice((1, 1, 2))):
            try:
                before = at(odd, place)
            except (KeyError, IndexError, TypeError):
                continue  # what stood there is gone
            values: list[Any] = [*ODD, before[:-1], before + before] if isinstance(before, list) else [*ODD]
            odd = changed(odd, place, rng.choice(values))
        path = copied(original, folder / f"c{number}")
        put_contract(path, odd, json.dumps(odd))
        yield path


def byte_fuzz(count: int, seed: int, original: Path, folder: Path) -> Iterator[Path]:
    """Yield files with a few bytes changed somewhere, their digests right."""
    rng = random.Random(seed)
    document = json.loads(original.with_suffix(".json").read_bytes())
    for number in range(count):
        path = copied(original, folder / f"b{number}")
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        file = rng.choice([file for file in files if file.stat().st_size])
        content = bytearray(file.read_bytes())
        # The contract inside is most of such a small file, and found at once.
        text = content.find(b'{"schema"')
        places = [place for place in range(len(content)) if text < 0 or not text <= place < text + 1500]
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.choice(places)
            content[place] = rng.choice((0, 1, 127, 128, 255, content[place] ^ (1 << rng.randrange(8))))
        if rng.random() < 0.1:
            content = content[: rng.randrange(len(content))]
        file.write_bytes(content)
        write_beside(path, document)
        yield path


def fuzz(files: Iterator[Path], frames: Path, ask: Ask) -> dict[int, int]:
    """Return how often each exit status came."""
    statuses = {0: 0, 1: 0}
    for path in files:
        before = state_of(path)
        for command in (["run", path, frames, "--fps", "4", "--json"], ["verify", path, "--json"]):
            code, out, err, bug = ask(*command)
            assert bug is None, (path, bug)
            assert code in statuses, (path, code, err)
            statuses[code] += 1
            if code:
                lines = [line for line in err.splitlines() if not line.startswith(("warning: ", "note: "))]
                assert len(lines) == 1, (path, err)
                assert lines[0].startswith("error: ")
            else:
                json.loads(out.splitlines()[-1], parse_constant=lambda constant: pytest.fail(constant))
        assert state_of(path) == before
    return statuses


@pytest.mark.parametrize("format_", ["onnx", "tflite", pytest.param("coreml", marks=pytest.mark.slow)])
def test_odd_contracts_take_one_line(
    format_: str, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    statuses = fuzz(contract_fuzz(format_, 12, 0, originals(format_), tmp_path), frames, ask)
    assert min(statuses.values()) > 0


@pytest.mark.parametrize("format_", FORMATS)
def test_odd_bytes_take_one_line(
    format_: str, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    assert fuzz(byte_fuzz(15, 1, originals(format_), tmp_path), frames, ask)[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
def test_more_odd_files_take_one_line(
    format_: str, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    fuzz(contract_fuzz(format_, 150, 2, originals(format_), tmp_path), frames, ask)
    fuzz(byte_fuzz(200, 2, originals(format_), tmp_path), frames, ask)
