"""Training in several processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from tsmzoo import models, registry
from tsmzoo.cli import app
from tsmzoo.data import dataset
from tsmzoo.data.encode import encode

CLASSES = ("red", "blue")


Train = Callable[..., Result]


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module or script in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture
def alike(tmp_path: Path, record_colours: Callable[..., Any]) -> Path:
    """Give eight copies of one still picture, of which the first of two processes gets those of one class.

    Its first batch norm, which no recipe freezes, sees the same in half a batch as in all of it.
    """
    folder = record_colours(tmp_path / "alike", 1, 4)
    frames = np.repeat(np.random.default_rng(5).integers(0, 256, (1, 40, 40, 3), np.uint8), 4, axis=0)
    order = np.random.default_rng([0, 0]).permutation(8)  # of seed 0, epoch 0
    for number in range(8):
        encode(folder / f"{number}.mp4", frames, 8)
    ones = {order[1], order[3], order[5]}  # all but one of the second process's
    dataset.write(folder, [(f"{number}.mp4", int(number in ones)) for number in range(8)], CLASSES)
    return folder


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(
    train: Train,
    alike: Path,
    zoo_file: Path,
    tmp_path: Path,
    metrics: Callable[..., Any],
    succeeded: Callable[..., Any],
    timeless: Callable[..., Any],
    written: Callable[..., Any],
) -> None:
    changes: dict[str, Any] = {"partial_bn": True, "lr": 0.5, "weight_decay": 0.0}
    one, two = tmp_path / "out", tmp_path / "two"
    lists = ["--data", str(alike), "--val", str(shutil.copytree(alike, tmp_path / "copies"))]
    succeeded(train(*lists, **changes))
    recipe = written(tmp_path / "mine.yaml", **changes)
    options = [*lists, "-o", str(two), "--registry", str(zoo_file)]
    done = torchrun("-m", "tsmzoo", "train", recipe, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["val_top1"] == metrics(two)[-1]["val_top1"], "one of the two speaks"
    before = models.build(registry.load(zoo_file).find("tiny"), seed=0).state_dict()
    after = [load_file(out / "model.safetensors") for out in (one, two)]
    for key, tensor in after[0].items():
        if "running_var" in key:  # unbiased: it depends on how many there are
            continue
        step, same = tensor - before[key], after[1][key] - before[key]
        torch.testing.assert_close(same, step, rtol=0.01, atol=0.01 * float(step.abs().max()) + 1e-6, msg=key)
    moved = after[0]["classifier.1.bias"] - before["classifier.1.bias"]
    assert moved.abs().min() > 0.01
    for [alone], [both] in [(timeless(one), timeless(two))]:
        assert both["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert (both["epoch"], both["val_top1"]) == (1, alone["val_top1"])


PROBE = """
import os, sys
import torch
from tsmzoo.cli import main
from tsmzoo.training import loop

measure = loop.validate

def probe(model, *rest):
    torch.save(model.state_dict(), os.path.join(sys.argv[sys.argv.index("-o") + 1], os.environ["RANK"] + ".pt"))
    return measure(model, *rest)

loop.validate = probe
main()
"""


@pytest.mark.slow
def test_both_processes_measure_the_network_that_is_kept(
    zoo_file: Path,
    data: Path,
    val: Path,
    tmp_path: Path,
    metrics: Callable[..., Any],
    succeeded: Callable[..., Any],
    written: Callable[..., Any],
) -> None:
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    recipe, out = written(tmp_path / "mine.yaml", epochs=2), tmp_path / "out"
    options = ["--data", str(data), "--val", str(val), "-o", str(out), "--registry", str(zoo_file)]
    done = torchrun(str(tmp_path / "probe.py"), "train", recipe, *options)
    assert done.returncode == 0, done.stderr
    lines = metrics(out)
    assert [line["epoch"] for line in lines] == pytest.approx([step / 3 for step in range(1, 7)], abs=1e-3)
    saved = load_file(out / "model.safetensors")
    for rank in range(2):
        measured = torch.load(out / f"{rank}.pt", weights_only=True)
        assert [k for k, tensor in saved.items() if not torch.equal(tensor, measured[f"backbone.{k}"])] == []
    options = ["--data", str(val), "--registry", str(out / "registry.yaml"), "--json"]
    measured = json.loads(succeeded(CliRunner().invoke(app, ["eval", "mine", *options])))
    assert measured["top1"] == lines[-1]["val_top1"]
