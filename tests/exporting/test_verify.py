"""`verify` must catch what converters do to a stream: each fault below is one that a first step may hide."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tsmzoo import models, registry
from tsmzoo.artifact.contract import Contract, StatePair, Tensor, Verification
from tsmzoo.artifact.converter import Runner
from tsmzoo.exporting import report
from tsmzoo.exporting import verify as export_verify
from tsmzoo.exporting.verify import with_structure
from tsmzoo.inference.describe import describe
from tsmzoo.inference.model import Model
from tsmzoo.inference.torch_runner import TorchRunner
from tsmzoo.typing import Array
from tsmzoo.weights.load import Network

Arrays = dict[str, Array]
Pair = tuple[Runner, Contract]
#: What is other than it should be in a call of a `Faulty` runner.
Change = Callable[["Faulty"], Arrays]

CLASSES, SIZE = 5, 8


def verify(reference: Pair, candidate: Pair, **options: Any) -> Verification:
    return export_verify.verify(Model(*reference), Model(*candidate), **options)


LOGITS = Tensor(name="logits", shape=(1, CLASSES), dtype="float32", layout="NC", meaning="")


def tensor(name: str, *shape: int | str, layout: Any = "NCHW", dtype: Any = "float32") -> Tensor:
    return Tensor(name=name, shape=shape, dtype=dtype, layout=layout, meaning="")


def contract(**changes: Any) -> Contract:
    """An online model of two states of one shape, small enough to be done by hand."""
    facts: dict[str, Any] = {
        "model": "toy",
        "family": "tsm",
        "mode": "online",
        "backbone": "toy",
        "dataset": "toy",
        "format": "onnx",
        "precision": "fp32",
        "preprocess": "external",
        "inputs": (tensor("frame", 1, 3, SIZE, SIZE), *(tensor(f"state_{i}", 1, 2, SIZE, SIZE) for i in (0, 1))),
        "outputs": (LOGITS, *(tensor(f"next_state_{i}", 1, 2, SIZE, SIZE) for i in (0, 1))),
        "states": tuple(StatePair(input=f"state_{i}", output=f"next_state_{i}") for i in (0, 1)),
        "classes": CLASSES,
        "labels": None,
        "channel_order": "RGB",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.25, 0.2, 0.5),
        "size": SIZE,
        "resize": SIZE,
        "frames": 1,
        "sampling": "stream",
        "stride": None,
        "target_fps": None,
        "weights": "random",
        "licence": "MIT",
        "citation": "toy",
        "versions": {},
    }
    return Contract(**(facts | changes))


def clip_contract(frames: int = 4, **changes: Any) -> Contract:
    clip = tensor("clip", 1, frames, 3, SIZE, SIZE, layout="NTCHW")
    facts = {"mode": "offline", "inputs": (clip,), "outputs": (LOGITS,), "states": (), "frames": frames}
    return contract(**(facts | changes))


WEIGHTS = np.random.default_rng(3).standard_normal((3, CLASSES)).astype("float32")


class Toy:
    """Two shifts in a row, in NumPy: what the second passes on depends on what the first was given."""

    runtime = "toy"

    def run(self, inputs: Arrays) -> Arrays:
        frame = inputs["frame"]
        first = np.concatenate([inputs["state_0"], frame[:, 2:]], 1)
        hidden = np.tanh(first + 0.3 * frame)
        second = np.concatenate([inputs["state_1"], hidden[:, 2:]], 1)
        return {
            "logits": second.mean((2, 3)) @ WEIGHTS,
            "next_state_0": frame[:, :2],
            "next_state_1": hidden[:, :2],
        }


class ToyClips:
    """Logits of a clip; frame t counts `weights[t]` times, so that equal weights ignore the order."""

    runtime = "toy"

    def __init__(self, *weights: float) -> None:
        self.weights = np.array(weights, "float32")

    def run(self, inputs: Arrays) -> Arrays:
        frames = inputs["clip"].mean((3, 4))  # N, T, C
        return {"logits": np.einsum("ntc,t->nc", frames, self.weights) @ WEIGHTS}


class Faulty:
    """A runner with something done to its inputs before, or to its outputs after."""

    runtime = "faulty"

    def __init__(self, inner: Runner, before: Change | None = None, after: Change | None = None) -> None:
        self.inner, self.before, self.after = inner, before, after
        #: Calls so far, this one included.
        self.calls = 0
        #: What a fault keeps from call to call.
        self.held: Arrays = {}
        self.given: Arrays = {}
        self.outputs: Arrays = {}

    def run(self, inputs: Arrays) -> Arrays:
        self.calls += 1
        self.given = dict(inputs)
        if self.before:
            self.given |= self.before(self)
        self.outputs = {name: value.copy() for name, value in self.inner.run(self.given).items()}
        if self.after:
            self.outputs |= self.after(self)
        return self.outputs


class Recorder(Faulty):
    def __init__(self, inner: Runner) -> None:
        self.seen: list[Arrays] = []
        super().__init__(inner, lambda call: self.seen.append(call.given) or {})


def states_of(arrays: Arrays) -> Arrays:
    return {name: value for name, value in arrays.items() if name.startswith("state_")}


def forget_updates(call: Faulty) -> Arrays:
    """The next states are the states that came in."""
    return {f"next_{name}": value for name, value in states_of(call.given).items()}


def never_read(call: Faulty) -> Arrays:
    """The states are constants of the graph: its first step is right, and so is every next state of it."""
    return {name: np.zeros_like(value) for name, value in states_of(call.given).items()}


def hide_state(call: Faulty) -> Arrays:
    """The state is kept inside from call to call, whatever is fed: right until the stream starts anew."""
    return call.held


def keep_states(call: Faulty) -> Arrays:
    call.held = {name: call.outputs[f"next_{name}"] for name in states_of(call.given)}
    return {}


def one_late(call: Faulty) -> Arrays:
    """The next states are those of the step before."""
    late = call.held or {name: np.zeros_like(value) for name, value in call.outputs.items() if name != "logits"}
    call.held = {name: value for name, value in call.outputs.items() if name != "logits"}
    return late


def swap(one: str, other: str) -> Change:
    return lambda call: {one: call.outputs[other], other: call.outputs[one]}


def drift(name: str, after: int) -> Change:
    """1 % too much of `name` from step `after` + 1 on."""
    return lambda call: {name: call.outputs[name] * 1.01} if call.calls > after else {}


def poison(name: str, value: float, at: int) -> Change:
    """One element of `name` is `value`, once."""

    def after(call: Faulty) -> Arrays:
        if call.calls == at:
            call.outputs[name].flat[1] = value
        return {}

    return after


def freeze(at: int) -> Change:
    """Every answer from that call on is that of that call."""

    def after(call: Faulty) -> Arrays:
        if call.calls <= at:
            call.held = call.outputs
        return call.held

    return after


NEXT = {"next_state_0", "next_state_1"}
#: What is done before, what after, the outputs that the reason may name, the step the fault first shows at.
FAULTS: dict[str, tuple[Any, Any, set[str], int]] = {
    "state updates dropped": (None, forget_updates, {"logits", *NEXT}, 1),
    "states never read": (never_read, None, {"logits", "next_state_1"}, 2),
    "states one step late": (None, one_late, NEXT, 1),
    "two states swapped": (None, swap("next_state_0", "next_state_1"), NEXT, 1),
    "state inputs swapped": (
        lambda call: {"state_0": call.given["state_1"], "state_1": call.given["state_0"]},
        None,
        {"logits", "next_state_1"},
        2,
    ),
    "logits drift after step 8": (None, drift("logits", 8), {"logits"}, 9),
    "a state drifts after step 8": (None, drift("next_state_1", 8), {"logits", "next_state_1"}, 9),
    "nan in a state at step 5": (
        None,
        poison("next_state_0", np.nan, 5),
        {"next_state_0", "next_state_1", "logits"},
        5,
    ),
    "nan in the logits at the last step": (None, poison("logits", np.nan, 32), {"logits"}, 32),
    "infinity in the logits": (None, poison("logits", -np.inf, 3), {"logits"}, 3),
    "state hidden inside": (hide_state, keep_states, {"logits", "next_state_1"}, 17),
    "frozen after the reset": (None, freeze(16), {"logits", *NEXT}, 17),
    "channels reversed": (lambda call: {"frame": call.given["frame"][:, ::-1]}, None, {"logits", *NEXT}, 1),
    "not normalised": (lambda call: {"frame": call.given["frame"] * 0.25 + 0.5}, None, {"logits", *NEXT}, 1),
    "upside down": (lambda call: {"frame": call.given["frame"][:, :, ::-1]}, None, NEXT, 1),
}


def test_a_faultless_stream_passes() -> None:
    toy = (Toy(), contract())
    found = verify(toy, (Faulty(Toy()), contract()), tolerance=1e-4, steps=16)
    assert (found.status, found.reason, found.max_rel_error, found.mean_rel_error) == ("passed", None, 0, 0)
    assert found.top1_agreement == 1
    assert found.runtime == "faulty"
    assert found.tolerance == 1e-4


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_stream_is_caught_and_named(fault: str) -> None:
    before, after, outputs, _ = FAULTS[fault]
    found = verify((Toy(), contract()), (Faulty(Toy(), before, after), contract()), tolerance=1e-4, steps=16)
    assert found.status == "failed"
    assert found.worst in outputs
    assert found.reason is not None
    assert found.reason.startswith(f"{found.worst} differs")
    assert "\n" not in found.reason
    if "nan" in fault or "infinity" in fault:
        assert "not finite" in found.reason
    else:
        assert found.max_rel_error is not None
        assert found.max_rel_error > 1e-4


@pytest.mark.parametrize("fault", [name for name, (*_, step) in FAULTS.items() if step > 1])
def test_the_faults_are_hidden_before_the_step_they_show_at(fault: str) -> None:
    """Else the test above would say nothing about streams."""
    before, after, _, step = FAULTS[fault]
    zeros = [np.full((1, 3, SIZE, SIZE), 10 * n, "uint8") for n in range(step if step <= 16 else 16)]
    good, bad = (Model(runner, contract()).run_stream(zeros) for runner in (Toy(), Faulty(Toy(), before, after)))
    for expected, found in list(zip(good, bad, strict=True))[: step - 1]:
        for name, value in expected.items():
            assert np.array_equal(value, found[name])


# The same with a network


@pytest.fixture(scope="module")
def online() -> tuple[TorchRunner, Contract]:
    zoo = registry.load()
    entry = msgspec.structs.replace(zoo.find("tsm_mbv2_online"), size=32)
    network = Network(entry, models.build(entry, seed=0), "random", seed=0)
    described = describe(zoo, network)
    return TorchRunner(network, described), described


NETWORK_FAULTS = {
    "state updates dropped": (None, forget_updates, "next_state"),
    "states never read": (never_read, None, ""),
    "two states of one shape swapped": (None, swap("next_state_4", "next_state_5"), "next_state_[45]"),
    "last state drifts at the end": (None, drift("next_state_9", 5), "next_state_9"),
}


def test_a_network_passes(online: tuple[TorchRunner, Contract]) -> None:
    assert verify(online, online, tolerance=0, steps=3).status == "passed"


@pytest.mark.parametrize("fault", NETWORK_FAULTS)
def test_a_fault_of_a_network_is_caught_and_named(fault: str, online: tuple[TorchRunner, Contract]) -> None:
    before, after, name = NETWORK_FAULTS[fault]
    found = verify(online, (Faulty(online[0], before, after), online[1]), tolerance=1e-4, steps=3)
    assert found.status == "failed"
    assert found.reason is not None
    assert found.reason.startswith(f"{found.worst} differs")
    assert found.worst is not None
    assert re.match(name, found.worst)


@pytest.fixture(scope="module")
def offline() -> tuple[TorchRunner, Contract]:
    zoo = registry.load()
    entry = msgspec.structs.replace(zoo.find("tsm_mbv2_k400"), size=32, frames=4)
    network = Network(entry, models.build(entry, seed=0), "random", seed=0)
    described = describe(zoo, network)
    return TorchRunner(network, described), described


def test_order_of_frames_is_checked_in_a_network(offline: tuple[TorchRunner, Contract]) -> None:
    assert verify(offline, offline, tolerance=1e-4, steps=16).status == "passed"
    backwards = Faulty(offline[0], lambda call: {"clip": call.given["clip"][:, ::-1].copy()})
    found = verify(offline, (backwards, offline[1]), tolerance=1e-4, steps=16)
    assert (found.status, found.worst) == ("failed", "logits")


# Clips


def test_tsm_whose_file_ignores_the_order_fails() -> None:
    right, blind = (ToyClips(0.1, 0.2, 0.3, 0.4), clip_contract()), (ToyClips(*[0.25] * 4), clip_contract())
    assert verify(right, right, tolerance=1e-4, steps=16).status == "passed"
    found = verify(right, blind, tolerance=1e-4, steps=16)
    assert (found.status, found.worst) == ("failed", "logits")


def test_tsn_ignores_the_order_and_passes() -> None:
    blind = (ToyClips(*[0.25] * 4), clip_contract(family="tsn"))
    assert verify(blind, blind, tolerance=1e-4, steps=16).status == "passed"


def test_a_clip_of_one_frame_has_no_order() -> None:
    """`--frames 1` is allowed, and its reversal is itself."""
    one = (ToyClips(1.0), clip_contract(frames=1))
    assert verify(one, one, tolerance=1e-4, steps=16).status == "passed"


def test_an_answer_kept_from_the_clip_before_is_caught() -> None:
    right = (ToyClips(0.1, 0.2, 0.3, 0.4), clip_contract())
    stale = (Faulty(right[0], after=freeze(1)), clip_contract())
    assert verify(right, stale, tolerance=1e-4, steps=16).status == "failed"


def test_clips_are_three_and_one_is_another_reversed() -> None:
    recorder = Recorder(ToyClips(0.1, 0.2, 0.3, 0.4))
    found = verify((ToyClips(0.1, 0.2, 0.3, 0.4), clip_contract()), (recorder, clip_contract()), tolerance=1, steps=99)
    first, second, third = (given["clip"] for given in recorder.seen)
    assert np.array_equal(second, first[:, ::-1])
    assert not np.array_equal(third, first)
    assert [case.steps for case in found.cases] == [1, 1, 1]
    assert found.steps == 3


def test_a_real_video_gives_clips_spread_over_it() -> None:
    video = np.stack([np.full((3, SIZE, SIZE), 20 * n, "uint8") for n in range(10)])
    embedded = clip_contract(
        preprocess="embedded", inputs=(tensor("clip", 1, 4, 3, SIZE, SIZE, layout="NTCHW", dtype="uint8"),)
    )
    recorder = Recorder(ToyClips(0.1, 0.2, 0.3, 0.4))
    found = verify((recorder, embedded), (recorder, embedded), tolerance=1e-4, steps=16, video=video)
    assert recorder.seen[-1]["clip"][0, :, 0, 0, 0].tolist() == [0, 60, 120, 180]
    assert found.steps == 4
    assert found.cases[-1].name == "video"


# What is measured


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


# Forms of files


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
    with_more = with_structure(failed, ["valid"], ["a GPU may not"])
    assert with_more.status == "failed"
    assert with_more.reason == failed.reason
    document = report.document(Path("m.onnx"), contract(), with_more, 1.0)
    assert document["passed"] is False


# What makes a comparison pointless


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
    assert "FAILED" in report.text(Path("m.onnx"), contract(), found, 1.0)
    document = report.document(Path("m.onnx"), contract(), found, 1.0)
    json.loads(json.dumps(document, allow_nan=False))
    assert document["passed"] is False
