"""Open ONNX files in ONNX Runtime, and time them. Imports no onnx, whose memory would count as the runtime's."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tsmzoo.artifact.arrays import runtime_error
from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import Profile
from tsmzoo.artifact.session import pixels, profile_of, timed
from tsmzoo.typing import Array

RUNTIME = f"onnxruntime {onnxruntime.__version__}"


def opened(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Return the file in ONNX Runtime on the CPU. Raises ArtifactError if that rejects it."""
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises plain RuntimeErrors of its own
        raise runtime_error(path, "ONNX Runtime rejects", error) from None


class OnnxSession:
    """ONNX Runtime, inputs and outputs bound; two sets of states take turns, so that none is copied."""

    runtime = RUNTIME

    def __init__(self, path: Path, contract: Contract, threads: int, profile: Path | None = None) -> None:
        self._opened = (path, contract, threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Else its threads spin on into the next file's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        self._session = opened(path, options)
        self._pixels = pixels(contract)
        self._frame = self._pixels.copy()
        # Bound by address: they live as long as the session does.
        self._logits = np.empty(contract.outputs[0].lengths(), "float32")
        self._states = (contract.initial_states(), contract.initial_states())
        self._bindings = [self._bound(contract, *self._states), self._bound(contract, *reversed(self._states))]

    def _bound(self, contract: Contract, states: dict[str, Array], next_states: dict[str, Array]) -> Any:
        binding = self._session.io_binding()
        for name, array in ((contract.main_input.name, self._frame), *states.items()):
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        outputs = {pair.output: next_states[pair.input] for pair in contract.states}
        for name, array in ((contract.outputs[0].name, self._logits), *outputs.items()):
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding

    def run(self) -> Any:
        np.copyto(self._frame, self._pixels)
        self._session.run_with_iobinding(self._bindings[0])
        self._bindings.reverse()
        return self._logits

    def profile(self, passes: int) -> Profile | None:
        """By node of the graph as ONNX Runtime rewrote it."""
        with tempfile.TemporaryDirectory() as folder:
            session = OnnxSession(*self._opened, Path(folder) / "profile")
            timed(session, passes + 1)
            events = json.loads(Path(session._session.end_profiling()).read_text(encoding="utf-8"))
        # Of the first pass, which warms up, nothing.
        begun = sorted(event["ts"] for event in events if event["name"] == "model_run")[1]
        return profile_of(
            [
                (event["args"]["op_name"], event["name"].removesuffix("_kernel_time"), event["dur"] / 1e3, 1)
                for event in events
                if event["name"].endswith("_kernel_time") and event["ts"] >= begun
            ],
            passes,
        )


def session(path: Path, contract: Contract, threads: int) -> OnnxSession:
    return OnnxSession(path, contract, threads)
