"""A file in fewer bits that is refused shows the figures that one shows which is kept."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tsmzoo.artifact import store
from tsmzoo.cli import app
from tsmzoo.data import motion
from tsmzoo.exporting import calibration
from tsmzoo.registry import recipes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from tsmzoo.artifact.contract import Contract
    from tsmzoo.typing import Array


class Direct:
    """The network, whose logits are turned by so much in fewer bits."""

    runtime = "direct"

    def __init__(self, model: nn.Module, contract: Contract, turned: float) -> None:
        self.model, self.contract, self.turned = model, contract, turned

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            outputs = self.model(*(torch.from_numpy(inputs[tensor.name]) for tensor in self.contract.inputs))
        found = {tensor.name: out.numpy() for tensor, out in zip(self.contract.outputs, outputs, strict=True)}
        logits = found["logits"]
        return found | {"logits": (1 - self.turned) * logits + self.turned * np.roll(logits, 1, -1)}


class Fake:
    """The modules of a converter that writes a few bytes."""

    turned = 0.0

    def convert(self, model: nn.Module, _: Contract, out: Path) -> None:
        self.model = model
        out.write_bytes(b"a file")

    def quantize(self, source: Path, _: Contract, _feeds: Sequence[Any], out: Path, _keep: int = 0) -> list[Any]:
        out.write_bytes(source.read_bytes()[:3])
        return []

    def check(self, _: Path, _contract: Contract) -> tuple[list[str], list[str]]:
        return ["looked at"], []

    def load(self, _: Path, contract: Contract, _threads: int | None = None) -> Direct:
        return Direct(self.model, contract, self.turned if contract.precision == "int8" else 0.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    converter = Fake()
    for module in ("convert", "quantize", "runtime"):
        monkeypatch.setitem(sys.modules, f"tsmzoo.converters.tflite.{module}", converter)  # type: ignore[arg-type]
    target = recipes.target
    monkeypatch.setattr(calibration, "STREAMS", 1)
    monkeypatch.setattr(calibration, "LONG", 20)
    monkeypatch.setattr(recipes, "target", lambda name: msgspec.structs.replace(target(name), steps=2))
    return converter


def export(folder: Path, *options: str) -> Result:
    if not (folder / "clips").exists():
        motion.write(folder / "clips", 4, 5)
    command = ["export", "tsm_mbv2_motion_online", "--to", "tflite", "--precision", "int8"]
    out = ["--calibrate", str(folder / "clips"), "-o", str(folder / "m.tflite")]
    return CliRunner().invoke(app, [*command, *out, *options])


FIGURES = re.compile(r"next to the float file on .*: same first class in [\d.]+%, cosine of logits -?[\d.]+; .* stream")


@pytest.mark.slow
def test_a_refusal_tells_what_a_pass_tells(fake: Fake, tmp_path: Path) -> None:
    good = export(tmp_path)
    assert good.exit_code == 0, good.output
    assert FIGURES.search(good.stdout)
    fake.turned = 0.7
    bad = export(tmp_path)
    assert bad.exit_code == 1
    assert FIGURES.search(bad.stdout), bad.output
    assert "FAILED" in bad.stdout
    assert bad.stderr.splitlines()[-1].startswith("error: m.tflite failed its verification and was not kept: ")
    # That of the older export.
    assert store.opened(tmp_path / "m.tflite").verification.status == "passed"  # type: ignore[union-attr]

    document = json.loads(export(tmp_path, "--json").stdout)
    assert document["passed"] is False
    quality = document["verification"]["quality"]
    assert 0 <= quality["agreement"] < 0.95
    assert -1 <= quality["cosine"] < 0.99
    assert len(quality["drift"]) == 20
    assert f"cosine of logits {quality['cosine']:.4f}" in bad.stdout
