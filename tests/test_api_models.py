"""A loaded model is measured and exported as what it is: its own input, its own registry."""

from __future__ import annotations

from pathlib import Path

import pytest

import tsmzoo
from tsmzoo.data import motion

MODEL = "tsm_mbv2_motion"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "clips"
    motion.write(folder, 14, 6, lambda *_: None)
    return folder


@pytest.mark.slow
def test_a_model_is_measured_with_the_frames_it_was_loaded_with(clips: Path) -> None:
    model = tsmzoo.load(MODEL, frames=4)
    with pytest.raises(tsmzoo.DataError, match=r"takes 4 frames of 64 px, .* load with --frames 8"):
        tsmzoo.evaluate(model, clips)
    result = tsmzoo.evaluate(model, clips, frames=4)
    assert (result.plan.frames, result.plan.size) == (4, 64)
    assert result.protocol.endswith("with frames 4")
    assert not any(row.same_protocol for row in result.published)
    assert result.top1 == tsmzoo.evaluate(MODEL, clips, frames=4, workers=0).top1


def test_a_model_is_measured_with_the_size_it_was_loaded_with(clips: Path) -> None:
    with pytest.raises(tsmzoo.DataError, match=r"takes 8 frames of 96 px, .* gives 8 of 64"):
        tsmzoo.evaluate(tsmzoo.load(MODEL, size=96), clips)


def test_models_are_compared_by_identity() -> None:
    one, other = tsmzoo.load(MODEL), tsmzoo.load(MODEL)
    assert {one, other, one} == {other, one}
    assert one != other
