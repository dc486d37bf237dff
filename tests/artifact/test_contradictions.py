"""Files whose digest is right and whose contract contradicts itself or them: one line, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.artifact.made import FORMATS, SIDE, Ask, changed, contract_of, copied, put_contract, state_of


def refused(answer: tuple[int, str, str, str | None], path: Path) -> str:
    """Return the one line of an error that names the file, or its contract."""
    code, _, err, bug = answer
    assert (code, bug) == (1, None), (answer, path)
    (line,) = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert line.startswith(f"error: {path.with_suffix('')}"), line
    return line


def answered(answer: tuple[int, str, str, str | None]) -> list[dict[str, Any]]:
    code, out, _, bug = answer
    assert (code, bug) == (0, None), answer
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("format_", ["onnx", "tflite", pytest.param("coreml", marks=pytest.mark.slow)])
def test_a_file_is_run_and_not_written(format_: str, originals: Callable[[str], Path], frames: Path, ask: Ask) -> None:
    path = originals(format_)
    before = state_of(path)
    lines = answered(
        ask(
            "run",
            path,
            frames,
            "--fps",
            "4",
            "--json",
            "--cut",
            "0",
            "--window",
            "1",
            "--threshold",
            "0",
            "--hold",
            "1",
        )
    )
    # By hand: (0 - 0.5) / 0.25 = -2 for black, 2 for full, (200 / 255 - 0.5) / 0.25 = 1.137 for the first green.
    logits = np.array([[-2, 1.13725, -2], [0, -0.86275, -4], [2, -2.86275, -6]])
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert [line["label"] for line in lines] == ["green", "red", "red"]
    assert [line["top5"][0]["probability"] for line in lines] == pytest.approx(odds.max(1), abs=1e-4)
    assert state_of(path) == before


#: One for each thing that a contract says twice, or that has bounds.
CONTRADICTIONS: list[tuple[tuple[str | int, ...], Any]] = [
    (("labels",), ["red", "green"]),
    (("labels",), []),
    (("classes",), 4),
    (("classes",), 10**12),
    (("classes",), 0),
    (("mean",), [0.5, 0.5]),
    (("mean",), []),
    (("mean", 0), 1e308),
    (("std", 1), 0.0),
    (("std", 1), -0.25),
    (("std",), [0.25] * 4),
    (("size",), 9),
    (("size",), -8),
    (("size",), 10**30),
    (("resize",), 4),
    (("frames",), 2),
    (("frames",), 0),
    (("mode",), "offline"),
    (("state",), "packed"),
    (("state",), "implicit"),
    (("states",), []),
    (("states", 0, "input"), "frame"),
    (("states", 0, "output"), "logits"),
    (("inputs",), []),
    (("outputs",), []),
    (("inputs", 0, "shape"), [1, 3, SIDE]),
    (("inputs", 0, "shape"), []),
    (("inputs", 0, "shape"), [1, -3, SIDE, SIDE]),
    (("inputs", 0, "shape"), [1, 3, 2**40, 2**40]),
    (("inputs", 0, "shape"), ["N", 3, SIDE, SIDE]),
    (("inputs", 0, "shape"), [1, "N", SIDE, SIDE]),
    (("inputs", 0, "layout"), "NTCHW"),
    (("inputs", 0, "layout"), "NC"),
    (("inputs", 0, "dtype"), "float16"),
    (("inputs", 0, "type"), "image-like"),
    (("inputs", 1, "name"), "frame"),
    (("inputs", 1, "shape"), [1, 1, 3, 1]),
    (("inputs", 1, "type"), "image"),
    (("outputs", 0, "name"), "scores"),
    (("outputs", 0, "shape"), [1, 4]),
    (("outputs", 0, "shape"), [2, 3]),
    (("outputs", 1, "dtype"), "uint8"),
    (("parts",), [{"name": "state_0", "shape": [1, 3, 1, 1], "dtype": "float32", "layout": "NCHW", "meaning": ""}]),
    (("channel_order",), "GBR"),
    (("target_fps",), 0.0),
    (("stride",), 0),
]


@pytest.mark.parametrize(("place", "value"), CONTRADICTIONS, ids=str)
def test_a_contract_that_contradicts_itself_is_refused(
    place: tuple[str | int, ...], value: Any, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    path = copied(originals("onnx"), tmp_path / "m")
    document = changed(msgspec.to_builtins(contract_of("onnx")), place, value)
    put_contract(path, document, json.dumps(document))
    before = state_of(path)
    for command in (["run", path, frames], ["verify", path]):
        line = refused(ask(*command), path)
        assert "contradicts itself" in line or "is no contract of this version" in line
    assert state_of(path) == before


def test_real_contracts_contradict_nothing() -> None:
    """Of every kind of file that can be exported of the bundled models."""
    from tsmzoo import registry
    from tsmzoo.artifact.converter import converter_of
    from tsmzoo.formats import Format
    from tsmzoo.inference.describe import describe
    from tsmzoo.weights.load import load_network

    zoo = registry.load()
    for model in ("tsm_mbv2_motion", "tsm_mbv2_motion_online"):
        network = load_network(zoo.find(model), "random")
        for converter in (None, *map(converter_of, Format)):
            options: list[dict[str, Any]] = [
                {},
                {"preprocess": "embedded"},
                {"dynamic_batch": True},
                {"activated": True},
            ]
            if model.endswith("online") and converter is not None:
                options += [{"state": state} for state in converter.states]
            for each in options:
                assert list(describe(zoo, network, converter, **each).faults()) == []


@pytest.mark.parametrize("format_", FORMATS)
def test_tensors_other_than_the_files_are_named(
    format_: str, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    """A contract that agrees with itself, of a file that has other shapes."""
    path = copied(originals(format_), tmp_path / "m")
    document = msgspec.to_builtins(contract_of(format_))
    for group in (("inputs", 1), ("outputs", 1)):
        document = changed(document, (*group, "shape"), [1, 3, 2, 1] if format_ != "tflite" else [1, 2, 1, 3])
    put_contract(path, document, json.dumps(document))
    line = refused(ask("run", path, frames), path)
    assert "next_state_0" in line
    assert "its contract says" in line
