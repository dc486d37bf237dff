"""How `verify` judges: ranges, tolerance, batches, layouts, what is not finite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.exporting.faults import (
    LOGITS,
    SIZE,
    WEIGHTS,
    Arrays,
    Change,
    Faulty,
    Recorder,
    Toy,
    contract,
    drift,
    never_read,
    poison,
    states_of,
    tensor,
    verify,
)
from tsmzoo.artifact.contract import Contract, Tensor
from tsmzoo.exporting import report


class Table:
    """Answers from a list, whatever it is fed."""

    runtime = "table"

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.rows = iter(rows)

    def run(self, _: Arrays) -> Arrays:
        return {"logits": np.array([next(self.rows)], "float32")}


def stateless(**changes: Any) -> Contract:
    return contract(inputs=(tensor("frame", 1, 3, SIZE, SIZE),), outputs=(LOGITS,), states=(), **changes)


def test_errors_are_relative_to_the_range_of_the_output_in_torch() -> None:
    torch = [[0, 2], [1, -3], [0, 0], [4, 10], [0, 5], [5, 1]]
    # Largest difference: 0.01 in a stream that ranges over 5, then 0.012 in one that ranges over 10.
    file = [[0, 2], [1.01, -3], [0, 0], [4, 10], [0, 5], [5, 0.988]]
    found = verify((Table(torch), stateless()), (Table(file), stateless()), tolerance=2.1e-3, steps=3)
    assert found.status == "passed"
    assert found.max_rel_error == pytest.approx(0.01 / 5, rel=1e-4)
    assert [case.max_rel_error for case in found.cases] == pytest.approx([0.01 / 5, 0.012 / 10], rel=1e-4)
    assert found.mean_rel_error == pytest.approx(np.mean([0.01 / 2 / 3 / 5, 0.012 / 2 / 3 / 10]), rel=1e-4)
    assert found.worst == "logits"
    found = verify((Table(torch), stateless()), (Table(file), stateless()), tolerance=1.9e-3, steps=3)
    assert found.status == "failed"
    assert found.reason == "logits differs by 2.00e-03 of its range, more than 2e-03"


class Unread:
    """Logits in the ten thousands, and a state of 0…1 that nothing reads."""

    runtime = "unread"

    def __init__(self, offset: float) -> None:
        self.offset = np.float32(offset)

    def run(self, inputs: Arrays) -> Arrays:
        logits = 1e4 * inputs["frame"].mean((2, 3)) @ WEIGHTS
        state = np.linspace(0, 1, inputs["state_0"].size, dtype="float32").reshape(inputs["state_0"].shape)
        return {"logits": logits, "next_state_0": state + self.offset}


def test_a_range_is_that_of_one_output_not_of_all() -> None:
    full = contract()
    made = contract(inputs=full.inputs[:2], outputs=full.outputs[:2], states=full.states[:1])
    found = verify((Unread(0), made), (Unread(0.01), made), tolerance=1e-3, steps=2)
    assert (found.status, found.worst) == ("failed", "next_state_0")
    assert found.max_rel_error == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(("offset", "status"), [(0.0, "passed"), (0.5, "failed")])
def test_a_constant_output_counts_as_it_is(offset: float, status: str) -> None:
    rows = [[3.0, 3.0]] * 4
    off = [[3.0, 3.0 + offset]] * 4
    found = verify((Table(rows), stateless()), (Table(off), stateless()), tolerance=1e-4, steps=2)
    assert found.status == status
    assert found.max_rel_error == pytest.approx(offset)


@pytest.mark.parametrize(
    ("precision", "weights", "status"),
    [("fp16", "published", "failed"), ("fp16", "random", "passed"), ("fp32", "published", "passed")],
)
def test_half_precision_must_keep_the_first_class(precision: str, weights: str, status: str) -> None:
    rows = [[1.0, 0.999, -1.0]] * 6
    off = [*rows[:3], [0.998, 0.999, -1.0], *rows[4:]]
    made = stateless(precision=precision, weights=weights)
    found = verify((Table(rows), stateless()), (Table(off), made), tolerance=1e-2, steps=3)
    assert found.status == status
    assert found.max_rel_error == pytest.approx(0.002 / 2, rel=1e-3)
    assert found.top1_agreement == pytest.approx(5 / 6)
    assert (found.reason or "").startswith("the first class" if status == "failed" else "")
    assert (found.reason is None) == (status == "passed")
    assert verify((Table(rows), stateless()), (Table(rows), made), tolerance=1e-2, steps=3).status == "passed"


@pytest.mark.parametrize("steps", [2, 16, 31])
def test_steps_are_those_of_two_streams(steps: int) -> None:
    recorder = Recorder(Toy())
    found = verify((Toy(), contract()), (recorder, contract()), tolerance=1e-4, steps=steps)
    assert [case.steps for case in found.cases] == [steps, steps]
    assert found.steps == 2 * steps == len(recorder.seen)
    fresh = [n for n, given in enumerate(recorder.seen) if not given["state_0"].any() and not given["state_1"].any()]
    assert fresh == [0, steps]


def test_a_video_is_a_third_stream_from_zero_states() -> None:
    video = np.random.default_rng(0).integers(0, 255, (7, 3, SIZE, SIZE), dtype="uint8")
    recorder = Recorder(Toy())
    found = verify((Toy(), contract()), (recorder, contract()), tolerance=1e-4, steps=3, video=video)
    assert [case.steps for case in found.cases] == [3, 3, 7]
    assert found.steps == 13
    assert not recorder.seen[6]["state_0"].any()
    wanted = (video / 255 - np.reshape([0.5, 0.4, 0.3], (3, 1, 1))) / np.reshape([0.25, 0.2, 0.5], (3, 1, 1))
    assert np.allclose([given["frame"][0] for given in recorder.seen[6:]], wanted, atol=1e-6)
    wrong_from_the_video_on = Faulty(Toy(), after=drift("logits", 6))
    found = verify((Toy(), contract()), (wrong_from_the_video_on, contract()), tolerance=1e-4, steps=3, video=video)
    assert found.status == "failed"
    assert [case.max_rel_error > 1e-4 for case in found.cases] == [False, False, True]


def test_frames_are_the_same_each_time_and_each_other_than_the_last() -> None:
    one, two = Recorder(Toy()), Recorder(Toy())
    for recorder in (one, two):
        verify((Toy(), contract()), (recorder, contract()), tolerance=1e-4, steps=4)
    frames = [given["frame"] for given in one.seen]
    assert all(np.array_equal(frame, given["frame"]) for frame, given in zip(frames, two.seen, strict=True))
    assert len({frame.tobytes() for frame in frames}) == 8


def batch(made: Contract) -> Contract:
    def free(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(msgspec.structs.replace(one, shape=("N", *one.shape[1:])) for one in tensors)

    return msgspec.structs.replace(made, inputs=free(made.inputs), outputs=free(made.outputs))


def test_any_batch_is_tried_with_two() -> None:
    recorder = Recorder(Toy())
    found = verify((Toy(), batch(contract())), (recorder, batch(contract())), tolerance=1e-4, steps=3)
    assert found.status == "passed"
    assert [len(given["frame"]) for given in recorder.seen] == [1] * 6 + [2] * 3
    assert not np.array_equal(recorder.seen[-1]["frame"][0], recorder.seen[-1]["frame"][1])
    assert [case.steps for case in found.cases] == [3, 3, 3]


def test_a_batch_whose_clips_are_mixed_up_is_caught() -> None:
    def first_for_all(call: Faulty) -> Arrays:
        return {name: np.repeat(value[:1], len(value), 0) for name, value in call.outputs.items()}

    mixed = Faulty(Toy(), after=first_for_all)
    assert verify((Toy(), contract()), (mixed, contract()), tolerance=1e-4, steps=3).status == "passed"
    found = verify((Toy(), batch(contract())), (mixed, batch(contract())), tolerance=1e-4, steps=3)
    assert found.status == "failed"
    assert [case.max_rel_error > 1e-4 for case in found.cases] == [False, False, True]


class ChannelsLast:
    """Toy as a TFLite file has it: channels last, camera values in."""

    runtime = "channels last"

    def run(self, inputs: Arrays) -> Arrays:
        assert inputs["frame"].dtype == np.uint8
        made = contract()
        pixels = inputs["frame"].transpose(0, 3, 1, 2) / 255
        mean, std = (np.reshape(values, (3, 1, 1)) for values in (made.mean, made.std))
        given = {name: value.transpose(0, 3, 1, 2) for name, value in states_of(inputs).items()}
        outputs = Toy().run({"frame": ((pixels - mean) / std).astype("float32"), **given})
        return {n: value if n == "logits" else value.transpose(0, 2, 3, 1) for n, value in outputs.items()}


def test_layout_and_preprocessing_of_the_file_are_its_own() -> None:
    made = contract(
        preprocess="embedded",
        inputs=(
            tensor("frame", 1, SIZE, SIZE, 3, layout="NHWC", dtype="uint8"),
            *(tensor(f"state_{i}", 1, SIZE, SIZE, 2, layout="NHWC") for i in (0, 1)),
        ),
        outputs=(LOGITS, *(tensor(f"next_state_{i}", 1, SIZE, SIZE, 2, layout="NHWC") for i in (0, 1))),
    )
    assert verify((Toy(), contract()), (ChannelsLast(), made), tolerance=1e-5, steps=16).status == "passed"


def test_what_was_checked_without_running_does_not_change_the_verdict() -> None:
    failed = verify((Toy(), contract()), (Faulty(Toy(), never_read), contract()), tolerance=1e-4, steps=4)
    with_more = msgspec.structs.replace(failed, structure=("valid",), advice=("a GPU may not",))
    assert with_more.status == "failed"
    assert with_more.reason == failed.reason
    assert report.result(Path("m.onnx"), contract(verification=with_more), 1.0).passed is False


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_whose_answers_are_not_finite_passes_nothing(value: float) -> None:
    damaged = (Faulty(Toy(), after=poison("logits", value, 2)), contract())
    found = verify(damaged, (Toy(), contract()), tolerance=1e-4, steps=4)
    assert found.status == "failed"
    assert "not finite" in (found.reason or "")
    same = (Faulty(Toy(), after=poison("logits", value, 2)), contract())
    assert verify(damaged, same, tolerance=1e-4, steps=4).status == "failed"


def cut(call: Faulty) -> Arrays:
    """A shape that NumPy would stretch to the right one."""
    return {"logits": call.outputs["logits"][:, :1]}


def test_an_output_of_another_shape_is_not_stretched() -> None:
    found = verify((Toy(), contract()), (Faulty(Toy(), after=cut), contract()), tolerance=1e9, steps=2)
    assert found.status == "failed"
    assert "logits is of shape (1, 1) instead of (1, 5)" in (found.reason or "")


@pytest.mark.parametrize("fault", [cut, poison("logits", np.nan, 1)], ids=["shape", "nan"])
def test_every_failure_can_be_told(fault: Change) -> None:
    found = verify((Toy(), contract()), (Faulty(Toy(), after=fault), contract()), tolerance=1e-4, steps=2)
    assert found.status == "failed"
    artifact = report.result(Path("m.onnx"), contract(verification=found), 1.0)
    assert "FAILED" in report.text(artifact)
    assert json.loads(msgspec.json.encode(artifact))["passed"] is False
