"""Faults of a stream's file that `verify` must catch: each is one that a first step may hide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.exporting.faults import (
    SIZE,
    Arrays,
    Faulty,
    Toy,
    contract,
    drift,
    forget_updates,
    freeze,
    never_read,
    poison,
    states_of,
    swap,
    verify,
)
from tsmzoo.inference.model import Model


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
