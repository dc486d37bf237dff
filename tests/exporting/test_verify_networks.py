"""`verify` of networks and clips: the order of frames, answers kept, real videos."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.exporting.faults import (
    LOGITS,
    SIZE,
    WEIGHTS,
    Arrays,
    Faulty,
    Recorder,
    contract,
    drift,
    forget_updates,
    freeze,
    never_read,
    swap,
    tensor,
    verify,
)
from tsmzoo import models, registry
from tsmzoo.artifact.contract import Contract
from tsmzoo.inference.describe import describe
from tsmzoo.inference.torch_runner import TorchRunner
from tsmzoo.weights.load import Network


def clip_contract(frames: int = 4, **changes: Any) -> Contract:
    clip = tensor("clip", 1, frames, 3, SIZE, SIZE, layout="NTCHW")
    facts = {"mode": "offline", "inputs": (clip,), "outputs": (LOGITS,), "states": (), "frames": frames}
    return contract(**(facts | changes))


class ToyClips:
    """Logits of a clip; frame t counts `weights[t]` times, so that equal weights ignore the order."""

    runtime = "toy"

    def __init__(self, *weights: float) -> None:
        self.weights = np.array(weights, "float32")

    def run(self, inputs: Arrays) -> Arrays:
        frames = inputs["clip"].mean((3, 4))  # N, T, C
        return {"logits": np.einsum("ntc,t->nc", frames, self.weights) @ WEIGHTS}


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
