"""Exports for the tests: commands, one real ONNX file, what an app would do with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.artifact import store
from tsmzoo.cli import app
from tsmzoo.typing import Array

ROOT = Path(__file__).resolve().parents[2]


ZOO = registry.load()


MEAN, STD = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))


RANDOM = "warning: the weights of {} are RANDOM (seed 0); its answers mean nothing\n"


#: Channels of the online model's states, and the stride they stand at (design, § 2).
FOLDS = (3, 4, 4, 8, 8, 8, 12, 12, 20, 20)


STRIDES = (4, 8, 8, 16, 16, 16, 16, 16, 32, 32)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def document_of(result: Result) -> Any:
    """Return the one JSON document on stdout, by the letter of the standard."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(result.stdout, parse_constant=refuse)


def refusal(result: Result) -> str:
    """Return the one line of an error that a user can cause."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    *warnings, error = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert all(line.startswith("warning: ") for line in warnings)
    return error


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write_video(path: Path, frames: int = 20, size: tuple[int, int] = (96, 72)) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=15)
        stream.width, stream.height = size
        for number in range(frames):
            image = np.zeros((size[1], size[0], 3), "uint8")
            image[..., 0] = np.linspace(0, 255, size[0])
            image[:, 3 * number % 80 : 3 * number % 80 + 16] = (20, 220, 120)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


@dataclass
class Quick:
    path: Path
    result: Result

    @property
    def contract(self) -> dict[str, Any]:
        return json.loads(self.path.with_suffix(".json").read_bytes())


def glue(path: Path) -> Callable[[list[Array]], Iterator[dict[str, Array]]]:
    """Run a stream or clips with the format's own runtime, by what the JSON says and nothing of tsmzoo."""
    contract = json.loads((path.with_suffix(".json")).read_bytes())
    assert contract["artifact"] == path.name
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]

        def call(inputs: dict[str, Array]) -> dict[str, Array]:
            return dict(zip(names, session.run(names, inputs), strict=True))
    else:
        from ai_edge_litert.interpreter import Interpreter

        signature = Interpreter(model_path=str(path)).get_signature_runner("serving_default")

        def call(inputs: dict[str, Array]) -> dict[str, Array]:
            return signature(**inputs)

    main, *states = contract["inputs"]

    def run(inputs: list[Array]) -> Iterator[dict[str, Array]]:
        held = {s["name"]: np.zeros([1 if n == "N" else n for n in s["shape"]], s["dtype"]) for s in states}
        for array in inputs:
            if main["layout"] == "NHWC":
                array = array.transpose(0, 2, 3, 1)
            elif main["layout"] == "THWC":
                array = array[0].transpose(0, 2, 3, 1)
            if states and len(array) != len(held["state_0"]):
                held = {name: np.repeat(value, len(array), 0) for name, value in held.items()}
            outputs = call({main["name"]: np.ascontiguousarray(array.astype(main["dtype"])), **held})
            held = {pair["input"]: outputs[pair["output"]] for pair in contract["states"]}
            yield outputs

    return run


def correct_digest(path: Path) -> None:
    """Make the contract say what the file is now."""
    contract = json.loads(path.with_suffix(".json").read_bytes())
    digest, size = store.digest(path)
    path.with_suffix(".json").write_text(json.dumps(contract | {"sha256": digest, "bytes": size}))
