"""Values that no function of the API can mean are refused in one line, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tsmzoo
from tsmzoo import registry

MODEL, ONLINE = "tsm_mbv2_motion", "tsm_mbv2_motion_online"
NAN = float("nan")
#: Of a folder and a file that do not exist: a call that reads them has begun its work, and says so.
DATA, SAVED = "no-data", "no-predictions.jsonl"


def anything(value: Any) -> Any:
    """Return `value`, of which type checkers know nothing."""
    return value


@pytest.fixture(scope="module")
def model() -> tsmzoo.Model:
    return tsmzoo.load(MODEL)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: tsmzoo.load(MODEL, frames=0), "`frames` cannot be 0"),
        (lambda _: tsmzoo.load(MODEL, size=0), "`size` cannot be 0"),
        (lambda _: tsmzoo.load(MODEL, size=64.0), "`size` cannot be 64.0"),
        (lambda _: tsmzoo.load(MODEL, threads=-3), "`threads` cannot be -3"),
        (lambda _: tsmzoo.load(MODEL, weights="random", seed=-1), "`seed` cannot be -1"),
        (lambda _: tsmzoo.load(MODEL, weights="random", classes=0), "`classes` cannot be 0"),
        (lambda _: tsmzoo.load(MODEL, weights="random", labels=[]), "`labels` cannot be"),
        (
            lambda _: tsmzoo.load(MODEL, labels=["a"] * 14),
            "`labels`: of a checkpoint of your own; give it as `weights`",
        ),
        (lambda _: tsmzoo.load(MODEL, shift="bi", classes=14), "leave out `shift` and `classes`"),
        (lambda _: tsmzoo.count_flops(MODEL, size=0), "`size` cannot be 0"),
        (lambda _: tsmzoo.count_flops(MODEL, frames=0), "`frames` cannot be 0"),
        (lambda _: tsmzoo.Smoothing(window=0), "`window` cannot be 0"),
        (lambda _: tsmzoo.Smoothing(threshold=NAN), "`threshold` cannot be nan"),
        (lambda _: tsmzoo.Smoothing(hold=0), "`hold` cannot be 0"),
        (lambda model: model.classify(np.zeros((8, 64, 64, 3), np.uint8), top=-1), "`top` cannot be -1"),
        (lambda model: model.stream(every=0), "`every` cannot be 0"),
        (lambda _: tsmzoo.load(f"{MODEL}_online").stream(every=2), "answers every frame; leave out `every`"),
        (lambda _: tsmzoo.watch(MODEL, "x.mp4"), "is no `model` that load returned"),  # type: ignore[arg-type]
        (lambda model: tsmzoo.watch(model, "x.mp4", hold=0), "`hold` cannot be 0"),
        (lambda model: tsmzoo.watch(model, "x.mp4", fps=NAN), "`fps` cannot be nan"),
        (lambda model: model.transform([]), "there are no frames"),
        (lambda _: tsmzoo.evaluate([]), "there is nothing to evaluate"),
        (lambda _: tsmzoo.evaluate(MODEL, DATA, clips=0), "`clips` cannot be 0"),
        (lambda _: tsmzoo.evaluate(MODEL, DATA, crops=2), "`crops` cannot be 2: it is one of 1, 3, 5, 10"),
        (lambda _: tsmzoo.evaluate(MODEL, DATA, frames=0), "`frames` cannot be 0"),
        (lambda _: tsmzoo.evaluate(MODEL, DATA, observe=[150]), "`observe` cannot be (150,)"),
        (lambda _: tsmzoo.evaluate(MODEL, DATA, workers=-1), "`workers` cannot be -1"),
        (lambda _: tsmzoo.evaluate(MODEL, DATA, split=4), "`split` cannot be 4"),
        (lambda _: tsmzoo.evaluate(SAVED, factors=[NAN]), "`factors` cannot be [nan]"),
        (lambda _: tsmzoo.evaluate(SAVED, factors=[1, 2]), "1 models need as many `factors`, not 2"),
        (
            lambda _: tsmzoo.evaluate(SAVED, protocol="nonsense", frames=99),
            "saved predictions are scored as they are; leave out `protocol` and `frames`",
        ),
        (lambda _: tsmzoo.train("no-recipe.yaml", DATA, DATA, "run", split=0), "`split` cannot be 0"),
        (lambda _: tsmzoo.benchmark(MODEL, runs=0), "`runs` cannot be 0"),
        (lambda _: tsmzoo.benchmark(MODEL, threads=0), "`threads` cannot be 0"),
        (lambda _: tsmzoo.benchmark([]), "there is nothing to run"),
        (lambda model: tsmzoo.benchmark(model), "give its name or file, not what load returned"),
        (lambda model: tsmzoo.benchmark([MODEL, model]), "give its name or file"),
        (lambda _: tsmzoo.export("x.onnx", "tflite"), "x.onnx: is an exported file; give the model that it was made"),
        (lambda _: tsmzoo.export(Path("x.onnx"), "tflite"), "x.onnx: is an exported file"),
        (lambda _: tsmzoo.verify("no.onnx", steps=0), "`steps` cannot be 0"),
        (lambda _: tsmzoo.verify("."), ".: ends in none of"),
        (lambda _: tsmzoo.card("a\0b"), "`path` cannot be 'a\\x00b': give a path"),
        (lambda _: tsmzoo.verify("no.onnx", clip=anything(7)), "`clip` cannot be 7: give a path"),
        (lambda _: tsmzoo.evaluate(MODEL, anything(7)), "`data` cannot be 7"),
        (lambda _: tsmzoo.train(MODEL, anything(None), DATA, "run"), "`data` cannot be None"),
        (lambda _: tsmzoo.generate_clips(anything(b"clips")), "`folder` cannot be b'clips'"),
        (lambda _: tsmzoo.draw_accuracy("pictures", benchmarks=anything([7])), "`benchmarks` cannot be 7"),
        (lambda _: tsmzoo.export(MODEL, "onnx", anything(7)), "`output` cannot be 7"),
        (lambda _: tsmzoo.export(anything(7), "onnx"), "`model` cannot be 7"),
        (lambda _: tsmzoo.load(MODEL, weights="a\0b"), "null byte"),
        (lambda _: tsmzoo.load(MODEL, registry=anything(7)), "`registry` cannot be 7"),
        (lambda _: tsmzoo.load(MODEL, labels=anything(7)), "`labels` cannot be 7"),
        (lambda _: tsmzoo.load(MODEL, labels=anything(b"ab")), "`labels` cannot be b'ab'"),
        (lambda _: tsmzoo.load(MODEL, labels=anything([1])), "`labels` cannot be [1]"),
        (lambda _: tsmzoo.draw_accuracy("pictures", benchmarks=anything(7)), "`benchmarks` cannot be 7"),
        (lambda _: tsmzoo.evaluate(MODEL, "data", observe=anything([[1]])), "`observe` cannot be [1]"),
        (lambda _: tsmzoo.watch(tsmzoo.load(MODEL), anything(True)), "`video` cannot be True"),
        (lambda _: tsmzoo.load(MODEL, size=anything("\ud800")), "`size` cannot be '\\ud800'"),
        (lambda _: tsmzoo.list_models(anything(7)), "`pattern` cannot be 7"),
        (lambda _: tsmzoo.list_models(search=anything(7)), "`search` cannot be 7"),
        (lambda _: tsmzoo.list_cache(anything(7)), "`pattern` cannot be 7"),
        (lambda _: tsmzoo.evaluate(MODEL, DATA, observe=anything(50)), "`observe` cannot be 50: give a list"),
        (lambda _: tsmzoo.evaluate(SAVED, factors=anything(2)), "`factors` cannot be 2: give a list"),
        (lambda _: tsmzoo.evaluate(MODEL, DATA, layout=anything([1])), "`layout` cannot be [1]"),
        (lambda _: tsmzoo.train(MODEL, DATA, DATA, "run", layout=anything([1])), "`layout` cannot be [1]"),
        (lambda _: tsmzoo.mirror("folder", MODEL, url=anything(7)), "`url` cannot be 7"),
        (lambda _: tsmzoo.push("x.onnx", anything(7)), "`to` cannot be 7"),
        (lambda _: tsmzoo.model_table(anything(None)), "no model is called 'None'"),
    ],
)
def test_refused(
    call: Callable[[tsmzoo.Model], Any],
    message: str,
    model: tsmzoo.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tsmzoo.ZooError) as refused:
        call(model)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preprocess": "embeded"}, "`preprocess` cannot be 'embeded': it is one of embedded, external"),
        ({"precision": "fp8"}, "`precision` cannot be 'fp8': it is one of fp32, fp16, w8, int8"),
        ({"state": "pakced"}, "`state` cannot be 'pakced'"),
        ({"softmax": "yes"}, "`softmax` cannot be 'yes'"),
        ({"keep_float": -1}, "`keep_float` cannot be -1"),
    ],
)
def test_refused_by_export(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(tsmzoo.ExportError) as refused:
        tsmzoo.export(ONLINE, "onnx", tmp_path / "m.onnx", **given)
    assert str(refused.value).startswith(message)


def test_labels_of_a_checkpoint_of_ones_own_are_taken() -> None:
    names = tuple(f"gesture {n}" for n in range(registry.load().find(MODEL).classes))
    assert tsmzoo.load(MODEL, weights="random", labels=names).labels == names


def test_numbers_of_numpy_are_numbers() -> None:
    model = tsmzoo.load(MODEL, frames=np.int64(4), size=np.int32(96), threads=np.uint8(1))
    assert model(np.zeros((4, 3, 96, 96), np.uint8)).shape == (14,)
    assert type(model.contract.frames) is int
    assert tsmzoo.count_flops(MODEL, size=np.int64(32)).input_shape == [1, 8, 3, 32, 32]
    assert tsmzoo.Smoothing(window=np.int64(2), threshold=np.float32(0.5)).window == 2
    with pytest.raises(tsmzoo.UsageError, match=r"`size` cannot be 64\.0"):
        tsmzoo.load(MODEL, size=np.float64(64))
