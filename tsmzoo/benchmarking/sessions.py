"""What is timed: a file or network set up once, its states fed back. Those of files are in `converters/`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import Runner
from tsmzoo.benchmarking.run import Job, Loaded, Operator, Profile
from tsmzoo.errors import ArtifactError
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


class RunnerSession:
    """A file in the runner that every command has; for runtimes that bind no tensors and tell no times of operators."""

    def __init__(self, runner: Runner, contract: Contract) -> None:
        self.runtime, self._runner, self._contract = runner.runtime, runner, contract
        self._inputs = {contract.main_input.name: pixels(contract), **contract.initial_states()}

    def run(self) -> Any:
        outputs = self._runner.run(self._inputs)
        self._inputs |= {pair.input: outputs[pair.output] for pair in self._contract.states}
        return outputs[self._contract.answer]

    def profile(self, passes: int) -> None:  # noqa: ARG002 - as the others take it
        return None


class TorchSession:
    """The network itself, not folded, not rewritten."""

    def __init__(self, job: Job) -> None:
        import torch

        from tsmzoo import registry
        from tsmzoo.inference.reference import resized
        from tsmzoo.models.wrappers import ClipModel, StreamStep, state_shapes

        self.runtime = f"torch {torch.__version__}"
        torch.set_num_threads(job.threads)
        model = job.model
        zoo = model.adapted(registry.load(*map(Path, job.registries)))
        entry = resized(zoo.find(model.model), model.frames, model.size)
        network = model.load_network(entry)
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


def pixels(contract: Contract) -> Array:
    """Return noise as the file's main input takes it."""
    tensor, random = contract.main_input, np.random.default_rng(0)
    shape = tensor.lengths()
    if contract.preprocess == "embedded":
        return random.integers(0, 256, shape).astype(tensor.dtype)
    return random.standard_normal(shape).astype(tensor.dtype)


def rejected(path: Path, runtime: str, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path}: {runtime} rejects it ({of_error(error)}); export it again")


def _slowest(operators: Iterable[Operator]) -> tuple[Operator, ...]:
    return tuple(sorted(operators, key=lambda operator: -operator.ms))


def profile_of(events: Iterable[tuple[str, str, float, int]], passes: int) -> Profile:
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
