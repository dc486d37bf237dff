"""Run the test vector through the model as an app must: with NumPy and the model's own runtime, and nothing else.

    python reference.py     # prints the largest error; exits 1 where it is too large

A Core ML package is run on macOS, with each choice of its processors.

Read `main` and write the same in your language: states start as zeros, and what comes out as `next_state…` goes in
as `state…` (`packed_state` in Core ML, where all are one) at the next step.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
Array = np.ndarray[Any, np.dtype[Any]]
#: Named arrays in, named arrays out.
Run = Callable[[dict[str, Array]], dict[str, Array]]


def open_onnx(path: Path, contract: dict[str, Any]) -> Iterator[tuple[str, Run]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [tensor["name"] for tensor in contract["outputs"]]
    yield "ONNX Runtime", lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def open_tflite(path: Path, _: dict[str, Any]) -> Iterator[tuple[str, Run]]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    yield "LiteRT", lambda inputs: dict(runner(**inputs))


def open_coreml(path: Path, contract: dict[str, Any]) -> Iterator[tuple[str, Run]]:
    """What a unit cannot do falls to the CPU, without a word."""
    if sys.platform != "darwin":
        sys.exit("Core ML predicts on macOS alone; run this on a Mac, or `tsmzoo verify` here")
    import coremltools
    from PIL import Image

    images = {tensor["name"] for tensor in contract["inputs"] if tensor["type"] == "image"}

    def runs(model: Any) -> Run:
        def run(inputs: dict[str, Array]) -> dict[str, Array]:
            values = {
                name: Image.fromarray(value[0].transpose(1, 2, 0)) if name in images else value
                for name, value in inputs.items()
            }
            return dict(model.predict(values))

        return run

    for unit in coremltools.ComputeUnit:
        yield f"Core ML, {unit.name}", runs(coremltools.models.MLModel(str(path), compute_units=unit))


RUNTIMES = {"onnx": open_onnx, "tflite": open_tflite, "coreml": open_coreml}


def read(described: dict[str, Any]) -> Array:
    """Return an array of the vector: raw numbers, row after row, the lowest byte first."""
    content = (FOLDER / "vector" / described["file"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != described["sha256"]:
        sys.exit(f"{described['file']} is not the one that was written; copy the kit again")
    return np.frombuffer(content, np.dtype(described["dtype"]).newbyteorder("<")).reshape(described["shape"])


def main() -> None:
    header = json.loads((FOLDER / "vector" / "vector.json").read_text(encoding="utf-8"))
    contract = json.loads((FOLDER / header["contract"]).read_text(encoding="utf-8"))
    labels = (FOLDER / "labels.txt").read_text(encoding="utf-8").splitlines()
    inputs, expected = read(header["input"]), read(header["logits"])

    main_input, *states = contract["inputs"]
    failed = []
    for runtime, run in RUNTIMES[contract["format"]](FOLDER / header["model"], contract):
        held = {
            state["name"]: np.zeros([1 if isinstance(n, str) else n for n in state["shape"]], "float32")
            for state in states
        }
        rows = []
        for value in inputs:
            outputs = run({main_input["name"]: value.astype(main_input["dtype"]), **held})
            held = {pair["input"]: outputs[pair["output"]] for pair in contract["states"]}
            rows.append(outputs["logits"][0])
        found = np.stack(rows)

        error = float(np.abs(found - expected).max() / (np.ptp(expected) or 1.0))
        print(f"{runtime}: {len(found)} steps; the last answer is {labels[int(found[-1].argmax())]!r}")
        print(f"largest error {error:.1e} of the logits' range, allowed {header['tolerance']:.0e}")
        if not error <= header["tolerance"]:
            failed.append(runtime)
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)} does not compute what the model should")


if __name__ == "__main__":
    main()
