"""The network in torch, set up once to be timed. Sessions of files are in `converters/`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tsmzoo.artifact.converter import Operator, Profile
from tsmzoo.artifact.session import slowest
from tsmzoo.benchmarking.run import Job, Loaded
from tsmzoo.system.quiet import quiet


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
            state_bytes=sum(state.nbytes for state in self._states),
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
            slowest(
                Operator(
                    event.key.removeprefix("aten::"),
                    None,
                    event.self_cpu_time_total / 1e3 / passes,
                    event.count // passes,
                )
                for event in events
                if event.key.startswith("aten::")
            ),
            slowest(Operator(kind, name, ms / passes, calls // passes) for kind, name, ms, calls in nodes),
        )
