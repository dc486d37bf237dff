"""An exported file: what stands in it, beside it, and on the terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from tests.exporting.exports import (
    FOLDS,
    MEAN,
    RANDOM,
    ROOT,
    STD,
    STRIDES,
    ZOO,
    Quick,
    document_of,
    glue,
    invoke,
    listing,
    sha256,
    write_video,
)
from tsmzoo import models
from tsmzoo.models.wrappers import StreamStep


def test_stdout_is_one_document_and_stderr_the_warning(quick: Quick) -> None:
    assert quick.result.stderr == RANDOM.format("tsm_mbv2_online")
    document = document_of(quick.result)
    assert document["artifact"] == quick.path.name
    assert document["sha256"] == sha256(quick.path)
    assert document["bytes"] == quick.path.stat().st_size
    assert document["seconds"] > 0
    assert 0 <= document["max_rel_error"] <= 1e-4
    assert document["steps"] >= 32
    assert document["passed"] is True


def test_a_file_and_its_contract_and_nothing_else_are_left(quick: Quick) -> None:
    assert listing(quick.path.parent) == {"tsm_mbv2_online-fp32.onnx", "tsm_mbv2_online-fp32.json"}


def test_tensors_are_named_and_shaped_as_designed(quick: Quick) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(quick.path).graph

    def described(values: Any) -> list[tuple[str, list[int], str]]:
        types = onnx.TensorProto.DataType
        return [
            (v.name, [d.dim_value for d in v.type.tensor_type.shape.dim], types.Name(v.type.tensor_type.elem_type))
            for v in values
        ]

    states = [[1, fold, 64 // stride, 64 // stride] for fold, stride in zip(FOLDS, STRIDES, strict=True)]
    assert described(graph.input) == [
        ("frame", [1, 3, 64, 64], "UINT8"),
        *((f"state_{i}", shape, "FLOAT") for i, shape in enumerate(states)),
    ]
    assert described(graph.output) == [
        ("logits", [1, 27], "FLOAT"),
        *((f"next_state_{i}", shape, "FLOAT") for i, shape in enumerate(states)),
    ]


def test_a_file_declares_no_more_than_it_needs(quick: Quick) -> None:
    """A mean whose axes are an input came with opset 18, and with it IR 8; nothing in the graph is newer."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(quick.path)
    assert (model.ir_version, [(opset.domain, opset.version) for opset in model.opset_import]) == (8, [("", 18)])


def test_contract_tells_all_that_glue_code_needs(quick: Quick) -> None:
    contract = quick.contract
    wanted = {
        "model": "tsm_mbv2_online",
        "mode": "online",
        "format": "onnx",
        "precision": "fp32",
        "preprocess": "embedded",
        "state": "explicit",
        "activation": "softmax",
        "gpu_safe": False,
        "parts": [],
        "classes": 27,
        "channel_order": "RGB",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "size": 64,
        "resize": 73,  # 64 · 256 / 224
        "frames": 1,
        "target_fps": 15.0,
        "weights": "random",
        "seed": 0,
        "checkpoint": None,
        "artifact": quick.path.name,
        "sha256": sha256(quick.path),
        "bytes": quick.path.stat().st_size,
    }
    assert {key: contract[key] for key in wanted} == wanted
    assert contract["inputs"][0] | {"meaning": ""} == {
        "name": "frame",
        "shape": [1, 3, 64, 64],
        "dtype": "uint8",
        "layout": "NCHW",
        "meaning": "",
        "type": "tensor",
        "kind": None,
        "bounded": None,
    }
    assert "0…255" in contract["inputs"][0]["meaning"]
    assert contract["states"] == [
        {"input": f"state_{i}", "output": f"next_state_{i}", "initial": "zeros"} for i in range(10)
    ]
    assert len(contract["labels"]) == 27
    assert "Swiping Left" in contract["labels"]
    assert {"tsmzoo", "torch", "onnx", "onnxruntime"} <= contract["versions"].keys()
    assert contract["verification"]["status"] == "passed"
    assert contract["verification"] == document_of(quick.result)["verification"]
    assert "onnxruntime" in contract["verification"]["runtime"]
    assert [case["steps"] for case in contract["verification"]["cases"]] == [16, 16]


def test_the_same_facts_stand_inside_the_file(quick: Quick) -> None:
    onnx = pytest.importorskip("onnx")
    inside = json.loads({p.key: p.value for p in onnx.load(quick.path).metadata_props}["tsmzoo"])
    of_the_file_itself = {"artifact", "sha256", "bytes", "verification"}
    assert {key for key, value in quick.contract.items() if inside[key] != value} == of_the_file_itself


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(quick: Quick) -> None:
    """torch.onnx writes a stack trace, folders and all, to each node."""
    content = quick.path.read_bytes()
    for folder in (str(ROOT), sys.prefix, str(quick.path.parent), "site-packages", 'File "'):
        assert folder.encode() not in content


def test_the_file_runs_by_its_contract_alone(quick: Quick) -> None:
    frames = list(np.random.default_rng(5).integers(0, 256, (4, 1, 3, 64, 64), dtype="uint8"))
    entry = msgspec.structs.replace(ZOO.find("tsm_mbv2_online"), size=64)
    step = StreamStep(models.build(entry, seed=0))
    states = [torch.zeros(1, c, 64 // s, 64 // s) for c, s in zip(FOLDS, STRIDES, strict=True)]
    for frame, found in zip(frames, glue(quick.path)(frames), strict=True):
        with torch.no_grad():
            logits, *states = step(torch.from_numpy((frame / 255 - MEAN) / STD).float(), *states)
        assert np.abs(found["logits"] - logits.numpy()).max() <= 1e-4 * np.ptp(logits.numpy())
        for index, state in enumerate(states):
            error = np.abs(found[f"next_state_{index}"] - state.numpy()).max()
            assert error <= 1e-4 * np.ptp(state.numpy()), index


def test_run_answers_alike_with_the_file_and_the_model(quick: Quick, tmp_path: Path) -> None:
    entry = msgspec.to_builtins(msgspec.structs.replace(ZOO.find("tsm_mbv2_online"), size=64))
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"models": [entry]}))  # JSON is YAML
    video = write_video(tmp_path / "v.mp4")
    of_file = invoke("run", quick.path, video, "--json")
    of_model = invoke("run", "tsm_mbv2_online", video, "--weights", "random", "--registry", own, "--json")
    for result in (of_file, of_model):
        assert result.exit_code == 0, result.output
        assert result.stderr.startswith("warning: ")
        assert "RANDOM" in result.stderr
    assert "onnxruntime" in of_file.stderr
    assert "torch" in of_model.stderr
    file, model = ([json.loads(line) for line in result.stdout.splitlines()] for result in (of_file, of_model))
    assert len(file) == len(model) == 20
    for row, other in zip(file, model, strict=True):
        assert [each["label"] for each in row["top5"]] == [each["label"] for each in other["top5"]]
        probabilities = [[each["probability"] for each in one["top5"]] for one in (row, other)]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-4)
