"""Kits of toy files, without a conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.artifact.contract import Contract, Verification
from tsmzoo.artifact.converter import converter_of
from tsmzoo.cli import app
from tsmzoo.exporting.kit import kit
from tsmzoo.exporting.kit import vector as kit_vector
from tsmzoo.formats import Format
from tsmzoo.inference.describe import describe
from tsmzoo.inference.model import Model
from tsmzoo.inference.reference import resized
from tsmzoo.typing import Array
from tsmzoo.weights.load import load_network

ZOO = registry.load()


ONLINE, OFFLINE, FLOW, BGR = "tsm_mbv2_motion_online", "tsm_mbv2_motion", "tsm_r50_k400_flow", "tsn_bninception_k400"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contract_of(entry_id: str, to: str, **changes: Any) -> Contract:
    """Return the contract that an export of a model, small, would have."""
    entry = resized(ZOO.find(entry_id), 4, 32)
    preprocess, state = changes.pop("preprocess", "embedded"), changes.pop("state", "explicit")
    converter = converter_of(Format(to))
    contract = describe(ZOO, load_network(entry, "random"), converter, preprocess=preprocess, state=state)
    passed = Verification(status="passed", runtime="toy", tolerance=1e-4)
    return msgspec.structs.replace(contract, verification=passed, sha256="ab" * 32, bytes=8, **changes)


class Toy:
    """The network of `tests/data/kotlin/Interpreter.kt`."""

    runtime = "toy"

    def __init__(self, contract: Contract) -> None:
        self._contract = contract

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        values = inputs[self._contract.main_input.name].astype("float64").ravel()
        index = np.arange(values.size)
        drive = float((values * (index % 3 + index / values.size)).mean()) / 100
        states = [inputs[pair.input] for pair in self._contract.states]
        total = drive + sum(float(state.flat[-1]) for state in states)
        outputs = {
            pair.output: states[k] / np.float32(2) + np.float32(drive * (k + 1))
            for k, pair in enumerate(self._contract.states)
        }
        return outputs | {
            "logits": 3 * np.sin(total * np.arange(1, self._contract.classes + 1))[None].astype("float32")
        }


def written(folder: Path, contract: Contract) -> Path:
    """Write the kit of a file that `Toy` runs."""
    suffix = {"tflite": ".tflite", "onnx": ".onnx", "coreml": ".mlpackage"}[contract.format]
    model = folder / f"m{suffix}"
    if suffix == ".mlpackage":
        (model / "Data").mkdir(parents=True)
        (model / "Data" / "weights").write_bytes(b"a model!")
    else:
        model.write_bytes(b"a model!")
    kit.write(folder / "kit", model, contract, kit_vector.vector(Model(Toy(contract), contract)))
    return folder / "kit"


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "android, online": (ONLINE, "tflite", {}),
    "android, online, outside": (ONLINE, "tflite", {"preprocess": "external", "channel_order": "BGR"}),
    "android, offline": (OFFLINE, "tflite", {}),
    "android, dense": (OFFLINE, "tflite", {"stride": 3, "sampling": "dense"}),
    "android, flow": (FLOW, "tflite", {}),
    "android, packed": (ONLINE, "tflite", {"state": "packed"}),
    "android, for GPUs": (ONLINE, "tflite", {"gpu_safe": True}),
    "android, many labels": (OFFLINE, "tflite", {"activation": "sigmoid"}),
    "ios, online": (ONLINE, "coreml", {"precision": "fp16"}),
    "ios, online, outside": (ONLINE, "coreml", {"preprocess": "external"}),
    "ios, any rate": (ONLINE, "coreml", {"target_fps": None}),
    "ios, packed": (ONLINE, "coreml", {"state": "packed"}),
    "ios, many labels": (ONLINE, "coreml", {"activation": "sigmoid"}),
    "ios, offline": (OFFLINE, "coreml", {}),
    "ios, offline, outside": (OFFLINE, "coreml", {"preprocess": "external", "channel_order": "BGR"}),
    "ios, flow": (FLOW, "coreml", {"stride": 3, "sampling": "dense"}),
    "onnx": (ONLINE, "onnx", {}),
    "onnx, doubted": (OFFLINE, "onnx", {"doubt": ("nobody knows",), "labels": None}),
}
