"""Exported files, evaluated."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


#: Most tests are about one process.
HERE = ("--workers", "0")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, invoke: Callable[..., Any]) -> Callable[[str, str], Path]:
    """Give a function from model and format to an exported file of random weights."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(model: str, to: str) -> Path:
        pytest.importorskip({"onnx": "onnxscript", "tflite": "litert_torch"}[to])
        path = folder / f"{model}.{to}"
        result = invoke("export", model, "--to", to, "-o", path, "--weights", "random", "--seed", 3)
        assert result.exit_code == 0, result.output
        return path

    return export


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize("model", [TSN, TSM, ONLINE])
def test_a_file_answers_as_torch(
    model: str,
    to: str,
    exported: Callable[[str, str], Path],
    clips: Path,
    tmp_path: Path,
    answer: Callable[..., Any],
    close: Callable[..., Any],
    invoke: Callable[..., Any],
    lines: Callable[..., Any],
) -> None:
    """To a ten-thousandth: same frames, same states, same mean; and so to the same figures."""
    options, file = ("--data", clips, "--observe", "50"), exported(model, to)
    wanted = answer(model, *options, "--weights", "random", "--seed", "3", "--predictions", tmp_path / "torch.jsonl")
    found = answer(file, *options, "--predictions", tmp_path / "file.jsonl")
    assert (found["model"], found["format"], found["precision"]) == (model, to, "fp32")
    assert found["artifact_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    for key in ("top1", "top5", "mean_class", "ci95", "observed", "protocol", "plan", "list_sha256", "dataset"):
        assert found[key] == wanted[key], key
    assert f"{model} ran as {to} fp32, not in torch" in found["differences"]
    for ours, theirs in zip(lines(tmp_path / "file.jsonl"), lines(tmp_path / "torch.jsonl"), strict=True):
        assert close(ours["logits"], torch.tensor(theirs["logits"]), 1e-4)
        assert close(ours["observed"]["50"], torch.tensor(theirs["observed"]["50"]), 1e-4)
    assert "RANDOM" in invoke("eval", file, *options, *HERE).stderr


@pytest.mark.slow
def test_a_file_adds_up_with_a_model(
    exported: Callable[[str, str], Path], clips: Path, tmp_path: Path, answer: Callable[..., Any]
) -> None:
    answer(TSN, "--data", clips, "--weights", "random", "--predictions", tmp_path / "p.jsonl")
    document = answer(exported(TSM, "onnx"), tmp_path / "p.jsonl", "--data", clips)
    assert document["model"] == f"{TSM} + {TSN}"


@pytest.mark.slow
def test_what_a_file_does_not_take_is_refused(
    exported: Callable[[str, str], Path], clips: Path, refusal: Callable[..., Any]
) -> None:
    for options in (("--frames", "4"), ("--protocol", "accurate")):
        error = refusal(exported(TSM, "onnx"), "--data", clips, *options)
        assert "8 frames of 64 px" in error
