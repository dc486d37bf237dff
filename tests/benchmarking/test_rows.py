"""Rows of `bench`, checked by hand: times, ratios, profiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from tsmzoo.artifact.converter import Operator, Profile
from tsmzoo.benchmarking import run
from tsmzoo.benchmarking.run import Job, Timing
from tsmzoo.inference.reference import ModelReference
from tsmzoo.text import table

Toy = Callable[..., Path]
Bench = Callable[..., Result]


def test_figures_by_hand(timing: Callable[..., Timing]) -> None:
    first = timing([[0.001, 0.002, 0.003], [0.004, 0.005]])
    (row,) = run.rows([first])
    assert (row.median_ms, row.fps, row.ratio, row.peak_mb) == (3.0, 333.33, 1.0, 12.3)
    assert (row.runs, row.passes, row.per) == (2, 5, "frame")
    assert row.p95_ms == pytest.approx(4.8)  # 0.8 of the way from the fourth to the fifth
    (row,) = run.rows([timing([[0.5]], "offline")])
    assert (row.per, row.clips_per_s, row.fps) == ("clip", 2.0, msgspec.UNSET)


times = st.lists(st.lists(st.floats(1e-5, 10), min_size=1, max_size=5), min_size=1, max_size=7)


@given(times, st.floats(0.1, 10), st.data())
def test_a_slow_spell_that_hits_all_changes_no_ratio(
    timing: Callable[..., Timing], rounds: list[list[float]], factor: float, data: st.DataObject
) -> None:
    spells = [data.draw(st.floats(0.1, 100)) for _ in rounds]
    first = timing([[t * spell for t in round_] for round_, spell in zip(rounds, spells, strict=True)])
    second = timing([[t * spell * factor for t in round_] for round_, spell in zip(rounds, spells, strict=True)])
    assert run.ratio(second, first) == pytest.approx(factor)


def test_a_clip_and_a_frame_have_no_ratio(timing: Callable[..., Timing]) -> None:
    _, clip = run.rows([timing([[1.0]]), timing([[1.0]], "offline")])
    assert clip.ratio is None
    assert table(run.COLUMNS, [clip]).split()[-3] == "–"


def test_the_bytes_of_states_are_told_of_streams_alone(timing: Callable[..., Timing]) -> None:
    stream, clip = timing([[1.0]]), timing([[1.0]], "offline")
    stream = msgspec.structs.replace(stream, loaded=msgspec.structs.replace(stream.loaded, state_bytes=2_696_772))
    one, other = run.rows([stream, clip])
    assert (one.state_bytes, other.state_bytes) == (2_696_772, msgspec.UNSET)
    assert [row.split()[-2] for row in table(run.COLUMNS, [one, other]).splitlines()[-2:]] == ["2.70", "–"]


def test_of_core_ml_nobody_chose_the_threads(timing: Callable[..., Timing]) -> None:
    (row,) = run.rows([msgspec.structs.replace(timing([[1.0]]), job=Job(ModelReference("m.mlpackage"), threads=2))])
    assert row.threads is None
    assert "  –  frame  " in table(run.COLUMNS, [row])


@pytest.mark.parametrize(
    ("runtime", "notes"),
    [
        ("tsmzoo's ML Program interpreter, torch 2.13.0", ["m.onnx: an interpreter ran it; its times say nothing"]),
        ("Core ML, macOS 26.0", []),
        ("onnxruntime 1.31.1", []),
    ],
)
def test_an_interpreters_times_come_with_a_note(
    runtime: str, notes: list[str], monkeypatch: pytest.MonkeyPatch, bench: Bench, timing: Callable[..., Timing]
) -> None:
    measured = timing([[1.0]])
    measured = msgspec.structs.replace(
        measured, job=Job(ModelReference("m.onnx")), loaded=msgspec.structs.replace(measured.loaded, runtime=runtime)
    )
    monkeypatch.setattr(run, "check", lambda *_, **__: None)
    monkeypatch.setattr(run, "run_benchmark", lambda *_, **__: [measured])
    for options in ([], ["--json"]):
        result = bench("m.onnx", *options)
        assert result.exit_code == 0
        lines = result.stderr.splitlines()
        assert len(lines) == len(notes)
        assert all(line.startswith(note) for line, note in zip(lines, notes, strict=True))


def test_the_interpreters_name_is_known() -> None:
    interpreter = pytest.importorskip("tsmzoo.converters.coreml.interpreter", exc_type=ImportError)
    assert run.interpreted(interpreter.ProgramRunner.runtime)


def test_profile_in_the_document(timing: Callable[..., Timing]) -> None:
    profile = Profile(
        3, (Operator("Conv", None, 3.0, 2), Operator("Add", None, 1.0, 1)), (Operator("Conv", "a", 3.0, 1),)
    )
    (row,) = run.rows([timing([[1.0]], profile=profile)])
    document = msgspec.to_builtins(row)
    assert document["operators"][0] == {"kind": "Conv", "name": None, "calls": 2, "ms": 3.0, "share": 0.75}
    assert document["nodes"] == [{"kind": "Conv", "name": "a", "calls": 1, "ms": 3.0, "share": 0.75}]
    said, kinds, nodes = run.profiles(row)
    assert said == "m: 4 ms a frame by the profiler, of which shares compare, times do not"
    lines = [line.split() for line in kinds.splitlines()]
    assert [lines[0], *lines[2:]] == [
        ["operator", "calls", "ms", "share"],
        ["Conv", "2", "3.000", "75.0%"],
        ["Add", "1", "1.000", "25.0%"],
    ]
    lines = [line.split() for line in nodes.splitlines()[1:]]
    assert [lines[0], *lines[2:]] == [["node", "operator", "ms", "share"], ["a", "Conv", "3.000", "75.0%"]]
    long = msgspec.structs.replace(row, nodes=row.nodes * 14)
    assert run.profiles(long)[2].splitlines()[-1] == "and 2 more (--json)"


def test_a_profile_of_nothing_has_no_shares(timing: Callable[..., Timing]) -> None:
    profile = Profile(20, (Operator("Add", None, 0.0, 1),), (Operator("Add", "#0", 0.0, 1),))
    (row,) = run.rows([timing([[1.0]], profile=profile)])
    assert row.operators[0].share == 0


def test_a_runtime_that_tells_no_times_is_named(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, timing: Callable[..., Timing]
) -> None:
    monkeypatch.setattr(run, "check", lambda *_, **__: None)
    monkeypatch.setattr(run, "run_benchmark", lambda *_, **__: [timing([[1.0]])])
    result = bench("m.tflite", "--profile")
    assert result.stdout.splitlines()[-1] == "r 1: its Python does not tell the times of operators"
