"""A session per runtime, set up to be timed: inputs bound once, states fed back."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import load_converter
from tsmzoo.benchmark import litert_profile
from tsmzoo.benchmark.run import Job, Loaded, Operator, Profile
from tsmzoo.errors import ArtifactError
from tsmzoo.formats import Format
from tsmzoo.system.quiet import quiet
from tsmzoo.text import of_error
from tsmzoo.typing import Array


class Session(Protocol):
    """A model ready to run, its tensors in place."""

    runtime: str

    def run(self) -> Any:
        """Do one pass as an app does: pixels in, the states fed back; return the answer, which the next overwrites."""
        ...

    def profile(self, passes: int) -> Profile | None:
        """Return the times of its operators, or None where the runtime's Python does not tell."""
        ...


class OnnxSession:
    """ONNX Runtime, inputs and outputs bound; two sets of states take turns, so that none is copied."""

    def __init__(self, path: Path, contract: Contract, threads: int, profile: Path | None = None) -> None:
        import onnxruntime

        self._opened = (path, contract, threads)
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Else its threads spin on into the next file's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises plain RuntimeErrors of its own
            raise _rejected(path, "ONNX Runtime", error) from None
        self._pixels = _pixels(contract)
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
        return _profile(
            [
                (event["args"]["op_name"], event["name"].removesuffix("_kernel_time"), event["dur"] / 1e3, 1)
                for event in events
                if event["name"].endswith("_kernel_time") and event["ts"] >= begun
            ],
            passes,
        )


class TfliteSession:
    """The LiteRT interpreter, by its tensors' indices: by the signature a small network takes 1.2 times as long."""

    def __init__(self, path: Path, contract: Contract, threads: int) -> None:
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter

        self._opened = (path, threads)
        self.runtime = f"ai-edge-litert {version('ai-edge-litert')}"
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
            signature = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise _rejected(path, "LiteRT", error) from None
        inputs, outputs = signature.get_input_details(), signature.get_output_details()
        self._pixels, self._frame = _pixels(contract), inputs[contract.main_input.name]["index"]
        self._answer = outputs[contract.outputs[0].name]["index"]
        self._states = [(inputs[pair.input]["index"], outputs[pair.output]["index"]) for pair in contract.states]
        for tensor in contract.inputs[1:]:
            self._interpreter.set_tensor(inputs[tensor.name]["index"], np.zeros(tensor.lengths(), tensor.dtype))

    def run(self) -> Any:
        self._interpreter.set_tensor(self._frame, self._pixels)
        self._interpreter.invoke()
        for state, next_state in self._states:
            # Two copies; a view of either tensor takes as long to get.
            self._interpreter.set_tensor(state, self._interpreter.get_tensor(next_state))
        return self._interpreter.get_tensor(self._answer)

    def profile(self, passes: int) -> Profile | None:
        """By node of the graph as XNNPACK rewrote it; the states are not fed back."""
        with quiet():  # it logs what it makes
            told = litert_profile.profile(*self._opened, passes)
        if told is None:
            return None
        counted, nodes = told
        return _profile(nodes, counted)


class TorchSession:
    """The network itself, not folded, not rewritten."""

    def __init__(self, job: Job) -> None:
        import torch

        from tsmzoo import registry
        from tsmzoo.inference.reference import resized
        from tsmzoo.models.wrappers import ClipModel, StreamStep, state_shapes
        from tsmzoo.weights.load import load_network

        self.runtime = f"torch {torch.__version__}"
        torch.set_num_threads(job.threads)
        zoo = registry.load(*map(Path, job.registries))
        zoo = registry.with_classes(zoo, job.subject, job.classes, job.labels)
        entry = resized(zoo.find(job.subject), job.frames, job.size)
        network = load_network(
            entry,
            job.weights,
            seed=job.seed,
            weights_format=job.weights_format,
            shift=job.shift,
            allow_shift_mismatch=job.allow_shift_mismatch,
        )
        online, backbone = entry.mode == "online", network.backbone
        self._form = StreamStep(backbone) if online else ClipModel(backbone, entry.frames, entry.shift_frames)
        shapes = state_shapes(backbone, entry.channels, entry.size) if online else []
        self._states = [torch.zeros(shape) for shape in shapes]
        frame = (entry.channels, entry.size, entry.size)
        self._pixels = torch.randn(1, *(() if online else (entry.frames,)), *frame)
        self._frame = self._pixels.clone()
        self.loaded = Loaded(
            runtime=self.runtime,
            model=entry.id,
            mode=entry.mode,
            precision="fp32",
            weights=network.weights,
            input_shape=tuple(self._pixels.shape),
        )

    def run(self) -> Any:
        import torch

        with torch.inference_mode():
            self._frame.copy_(self._pixels)
            out = self._form(self._frame, *self._states)
            if isinstance(out, tuple):
                out, *self._states = out
        return out

    def profile(self, passes: int) -> Profile | None:
        """By operator of torch; nodes are the modules that hold no others."""
        import torch
        from torch.profiler import ProfilerActivity, record_function

        names = {module: name for name, module in self._form.named_modules() if not any(module.children())}
        prefix = "module "
        with ExitStack() as stack:
            open_: list[Any] = []

            def enter(module: Any, _: Any) -> None:
                open_.append(record_function(f"{prefix}{type(module).__name__} {names[module]}"))
                open_[-1].__enter__()

            def leave(*_: Any) -> None:
                open_.pop().__exit__(None, None, None)

            for module in names:
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            self.run()
            # It tells stderr that it starts, and how many events it kept.
            with quiet(), torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
                for _ in range(passes):
                    self.run()
        events = profiler.key_averages()
        nodes = [
            (*event.key.removeprefix(prefix).split(" ", 1), event.cpu_time_total / 1e3, event.count)
            for event in events
            if event.key.startswith(prefix)
        ]
        return Profile(
            passes,
            _slowest(
                Operator(
                    event.key.removeprefix("aten::"),
                    None,
                    event.self_cpu_time_total / 1e3 / passes,
                    event.count // passes,
                )
                for event in events
                if event.key.startswith("aten::")
            ),
            _slowest(Operator(kind, name, ms / passes, calls // passes) for kind, name, ms, calls in nodes),
        )


class CoremlSession:
    """Core ML on a Mac, which takes as many threads as it likes; elsewhere our interpreter."""

    def __init__(self, path: Path, contract: Contract) -> None:
        runner = load_converter(Format.COREML).load(path, contract)
        self.runtime, self._runner, self._contract = runner.runtime, runner, contract
        self._inputs = {contract.main_input.name: _pixels(contract), **contract.initial_states()}

    def run(self) -> Any:
        outputs = self._runner.run(self._inputs)
        self._inputs |= {pair.input: outputs[pair.output] for pair in self._contract.states}
        return outputs[self._contract.outputs[0].name]

    def profile(self, passes: int) -> Profile | None:  # noqa: ARG002 - as the others take it
        return None


def _pixels(contract: Contract) -> Array:
    """Return noise as the file's main input takes it."""
    tensor, random = contract.main_input, np.random.default_rng(0)
    shape = tensor.lengths()
    if contract.preprocess == "embedded":
        return random.integers(0, 256, shape).astype(tensor.dtype)
    return random.standard_normal(shape).astype(tensor.dtype)


def _rejected(path: Path, runtime: str, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path}: {runtime} rejects it ({of_error(error)}); export it again")


def _slowest(operators: Iterable[Operator]) -> tuple[Operator, ...]:
    return tuple(sorted(operators, key=lambda operator: -operator.ms))


def _profile(events: Iterable[tuple[str, str, float, int]], passes: int) -> Profile:
    """Sum an operator's kind, node, milliseconds and calls, over the kinds and over the nodes."""
    kinds, nodes, counts = Counter[str](), Counter[tuple[str, str]](), Counter[Any]()
    for kind, name, ms, calls in events:
        kinds[kind] += ms  # type: ignore[assignment]  # a Counter adds any numbers
        nodes[kind, name] += ms  # type: ignore[assignment]
        counts[kind] += calls
        counts[kind, name] += calls
    return Profile(
        passes,
        _slowest(Operator(kind, None, ms / passes, counts[kind] // passes) for kind, ms in kinds.items()),
        _slowest(Operator(*node, ms / passes, counts[node] // passes) for node, ms in nodes.items()),
    )


def timed(session: Session, passes: int) -> list[float]:
    """Return the seconds of each of `passes`."""
    times = []
    for _ in range(passes):
        began = perf_counter()
        session.run()
        times.append(perf_counter() - began)
    return times
