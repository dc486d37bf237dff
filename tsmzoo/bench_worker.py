"""One exported file or network in a process of its own, which `tsmzoo bench` starts and asks to run.

It reads a job (tsmzoo/bench.py) on the first line of stdin and loads it; each further line asks for so many passes, the
memory or a profile. Every answer is a line of JSON on stdout. It ends with its stdin, so that no orphan is left.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import msgspec
import numpy as np

from tsmzoo import artifact, litert_profile
from tsmzoo.artifact import Array, Contract
from tsmzoo.bench import Job, Loaded, Operator, Profile, encoded
from tsmzoo.converter import load_converter, missing_extra
from tsmzoo.errors import ArtifactError, ZooError
from tsmzoo.formats import Format, format_of
from tsmzoo.quiet import quiet
from tsmzoo.text import of_error

#: What is imported before the memory is first read, by kind of job.
_LIBRARIES = {
    "torch": ("torch", "tsmzoo.subject"),
    "onnx": ("onnxruntime",),
    "tflite": ("ai_edge_litert.interpreter",),
    "coreml": ("coremltools", "tsmzoo.converters.coreml"),
}


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
        from tsmzoo.models.forms import Clips, Step, state_shapes
        from tsmzoo.subject import resized
        from tsmzoo.weights import obtain

        self.runtime = f"torch {torch.__version__}"
        torch.set_num_threads(job.threads)
        zoo = registry.load(*map(Path, job.registries))
        zoo = registry.with_classes(zoo, job.subject, job.classes, job.labels)
        entry = resized(zoo.find(job.subject), job.frames, job.size)
        network = obtain(
            entry,
            job.weights,
            seed=job.seed,
            weights_format=job.weights_format,
            shift=job.shift,
            allow_shift_mismatch=job.allow_shift_mismatch,
        )
        online, backbone = entry.mode == "online", network.backbone
        self._form = Step(backbone) if online else Clips(backbone, entry.frames, entry.shift_frames)
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


def peak() -> float:
    """Return the most memory that this process has held so far, resident, in millions of bytes."""
    try:
        # Not ru_maxrss, which on Linux is never less than the parent's at the start.
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
    except (OSError, StopIteration):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024) / 1e6


def cores(threads: int, allowed: Iterable[int]) -> set[int]:
    """Return the processor's cores on which a job of so many threads runs; the same for every job.

    Left to the system, each process keeps to one core for long, and cores are not alike: on a shared machine of two, a
    file against itself measured 0.83 to 1.20, on one core 0.985 to 1.004. The first core has interrupts to serve.
    Where cores are of several kinds, `taskset` chooses: these are among those that it allows.
    """
    ordered = sorted(allowed)
    return set((ordered[1:] if threads < len(ordered) else ordered)[:threads])


def load(job: Job) -> tuple[Session, Loaded]:
    """Return what `job` names ready to run, and what it is. Raises ZooError."""
    kind = job.kind
    try:
        for library in _LIBRARIES[kind]:
            importlib.import_module(library)
    except ModuleNotFoundError as error:
        if kind == "torch":
            raise
        raise missing_extra(Format(kind), error) from None
    path = Path(job.subject)
    # Before the memory is read, as late as can be: this is the file that runs.
    contract = None if kind == "torch" else artifact.opened(path)
    before = peak()
    session: Session
    if contract is None:
        session = TorchSession(job)
        loaded = session.loaded
    else:
        if format_of(path) == Format.COREML:
            session = CoremlSession(path, contract)
        else:
            session = {"onnx": OnnxSession, "tflite": TfliteSession}[kind](path, contract, job.threads)
        loaded = Loaded(
            runtime=session.runtime,
            model=contract.model,
            mode=contract.mode,
            precision=contract.precision,
            weights=contract.weights,
            input_shape=contract.main_input.lengths(),
        )
    return session, msgspec.structs.replace(loaded, before_mb=before)


def timed(session: Session, passes: int) -> list[float]:
    """Return the seconds of each of `passes`."""
    times = []
    for _ in range(passes):
        began = perf_counter()
        session.run()
        times.append(perf_counter() - began)
    return times


@contextmanager
def _as_its_contract_says(job: Job) -> Iterator[None]:
    """Raise ArtifactError where a file fails in any other way: its tensors are not its contract's.

    A network has no contract to differ from: its bugs keep their traceback.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:  # each runtime raises its own kinds
        if job.kind == "torch":
            raise
        raise ArtifactError(
            f"{job.subject}: is not what its contract says ({of_error(error)}); export it again"
        ) from None


def main() -> None:
    # Answers have a handle of their own: what libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def answer(value: Any) -> None:
        answers.write(encoded(value))

    job = msgspec.convert(json.loads(sys.stdin.buffer.readline()), Job)
    if sys.platform == "linux":
        # Before the runtime starts threads, which inherit it. A sandbox may refuse it.
        with suppress(OSError):
            os.sched_setaffinity(0, cores(job.threads, os.sched_getaffinity(0)))
    try:
        if job.check:
            from tsmzoo.subject import check_file  # torch, which no file is measured with

            check_file(Path(job.subject))
            answer(None)
            return
        with quiet(), _as_its_contract_says(job):
            session, loaded = load(job)
        answer(loaded)
        for line in sys.stdin.buffer:
            request = json.loads(line)
            told: Any
            with _as_its_contract_says(job):
                if "passes" in request:
                    told = timed(session, request["passes"])
                elif "profile" in request:
                    told = session.profile(request["profile"])
                else:
                    told = peak() - loaded.before_mb
            answer(told)
    except ZooError as error:
        answer({"error": str(error)})


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # who asked is gone
        main()
