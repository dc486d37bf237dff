"""Draws one-lost-state.svg: what a check of one frame does not see, and a check of a stream does.

Exports the bundled online model to ONNX, runs 16 frames of seeded noise through the file, and compares the logits with
torch at every step: once with all ten states fed back, and ten times with one state left at zeros, as a converter that
drops a state update leaves it. Run from the root of the repository: `python docs/pictures/one_lost_state.py`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("svg")
from matplotlib import pyplot as plt

import tsmzoo

MODEL = "tsm_mbv2_motion_online"
STEPS = 16
LIMIT = 1e-4  # what `tsmzoo export` allows in fp32
OURS, LOST, GREY = "#00796b", "#c62828", "#757575"


def main() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (STEPS, 1, 3, 64, 64)).astype(np.uint8)
    model = tsmzoo.load(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        exported = tsmzoo.load(tsmzoo.export(model, to="onnx", output=Path(folder) / f"{MODEL}.onnx").path)
    expected = logits(model, frames)
    names = [pair.input for pair in exported.contract.states]
    lost = {name: logits(exported, frames, name) for name in names}
    kept = logits(exported, frames)
    unseen = sum(bool((answer.argmax(1) == expected.argmax(1)).all()) for answer in lost.values())
    print(f"{unseen} of {len(names)}: the most likely class never changes")
    draw(error(kept, expected), [error(answer, expected) for answer in lost.values()], unseen)


def logits(model: tsmzoo.Model, frames: np.ndarray, lost: str | None = None) -> np.ndarray:
    """Return the logits after each frame, `(steps, classes)`, the state `lost` left at zeros."""
    states, found = None, []
    for frame in frames:
        outputs, states = model.run_step(frame, states)
        if lost:
            states[lost] = np.zeros_like(states[lost])
        found.append(outputs["logits"][0])
    return np.stack(found)


def error(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the largest difference of any logit at each step, relative to the range of `expected`."""
    return np.abs(found - expected).max(1) / np.ptp(expected)


def draw(kept: np.ndarray, lost: list[np.ndarray], unseen: int) -> None:
    mpl.rcParams.update({"svg.hashsalt": "tsmzoo", "font.size": 11, "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(7.6, 3.9), layout="constrained")
    steps = np.arange(1, STEPS + 1)
    for errors in lost:
        axes.semilogy(steps, errors, color=LOST, alpha=0.45, lw=1)
    axes.semilogy(steps, kept, color=OURS, lw=2.2, marker="o", ms=4)
    axes.axhline(LIMIT, color=GREY, ls="--", lw=1)
    axes.text(STEPS, LIMIT * 1.25, "limit of tsmzoo export", color=GREY, ha="right", va="bottom")
    axes.text(STEPS, kept.max() * 1.8, "the file tsmzoo writes", color=OURS, ha="right", va="bottom", weight="bold")
    axes.text(2.3, 2.2e-3, "one of ten states dropped", color=LOST, va="top", weight="bold")
    axes.text(
        2.3, 8e-4, f"for {unseen} of the ten, the most likely class never changes", color=LOST, va="top", size="small"
    )
    axes.annotate(
        "frame 1 agrees\nwhatever is dropped",
        (1, kept[0] * 1.3),
        (1.6, 8e-6),
        color=GREY,
        arrowprops={"arrowstyle": "->", "color": GREY},
    )
    axes.set(xlabel="frame of the stream", ylabel="error against torch,\nof the logits' range", ylim=(5e-8, 2))
    axes.set_xticks([1, 4, 8, 12, 16])
    axes.spines[["top", "right"]].set_visible(False)
    out = Path(__file__).with_name("one-lost-state.svg")
    figure.savefig(out, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main()
