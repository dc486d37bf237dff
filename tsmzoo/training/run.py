"""A training run on disk: its folder, its metrics and the state from which it is resumed."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from tsmzoo.errors import TrainingError
from tsmzoo.system import files, processes
from tsmzoo.text import of_error

_T = TypeVar("_T")

METRICS = "metrics.jsonl"
RESUME = "last.pt"

#: The two lists of a run.
ListName = Literal["training", "validation"]
LISTS: tuple[ListName, ListName] = ("training", "validation")
#: Why videos cannot be read, by list and name.
Unreadable = dict[ListName, dict[str, str]]


def check_folder(out: Path, names: Iterable[str]) -> None:
    """Make the folder of a run. Raises TrainingError if it, or a file of these `names` in it, cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{out}: cannot be made ({error.strerror}); give another folder with -o") from None
    for path in (out / name for name in names):
        if path.is_symlink() or path.exists():
            try:
                with files.opened(path):
                    pass
            except OSError as error:
                raise TrainingError(
                    f"{path}: is to be written, but what lies there cannot be read ({error.strerror}); "
                    "move it away, or give another folder with -o"
                ) from None
    try:
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"here")
    except OSError as error:
        raise TrainingError(f"{out}: cannot be written in ({error.strerror}); give another folder with -o") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise TrainingError in place of the OSError of writing a file of a run."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written ({error.strerror}); mend that and run it again, it goes on from its last epoch"
        ) from None


class _State(msgspec.Struct, frozen=True):
    """What `last.pt` holds beside tensors; earlier versions wrote neither `skipped` nor `lost`."""

    of: str
    epochs: Annotated[int, msgspec.Meta(ge=1)]
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    skipped: Unreadable = {}
    lost: Unreadable = {}


class Metrics(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A line of metrics.jsonl: means since the line before, in percent; validated at the end of an epoch."""

    epoch: Annotated[float, msgspec.Meta(gt=0, le=1e12)]
    lr: float
    loss: float
    top1: float
    #: At the end of an epoch: top-1 on the validation list, and the videos of it that could be read.
    val_top1: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    val_videos: Annotated[int, msgspec.Meta(ge=1)] | None = None
    #: Videos of the training list that could not be read.
    skipped: Annotated[int, msgspec.Meta(ge=0)] | None = None
    #: Since the run began.
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class _ParameterGroup(msgspec.Struct, frozen=True):
    """A parameter group of the optimizer, of which only the numbers of the parameters are read."""

    params: list[int]


class Run:
    """A run in its folder: lines of metrics, and its state after every epoch, from which it is resumed.

    `fingerprint` says what two runs must share for one to go on where the other stopped. Raises TrainingError if the
    state there is of another run, or damaged.
    """

    def __init__(self, out: Path, fingerprint: str, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._out, self._fingerprint, self._net, self._optimizer = out, fingerprint, net, optimizer
        #: Epochs done and the seconds they took.
        self.epochs, self.seconds = 0, 0.0
        self.metrics: list[Metrics] = []
        #: Videos that the run skips from its start, and those that could not be read any more later.
        self.skipped: Unreadable = {"training": {}, "validation": {}}
        self.lost: Unreadable = {"training": {}, "validation": {}}
        try:
            content = _load_state(out / RESUME)
            if content is None:
                return
            kept = _plain({key: content[key] for key in _State.__struct_fields__ if key in content}, _State)
            if kept.of != self._fingerprint:
                raise TrainingError(
                    f"{out}: holds a run of another recipe, list or number of processes; give another folder with -o"
                )
            net.load_state_dict(_matching(content["net"], net.state_dict()))
            optimizer.load_state_dict(_optimizer_state(content["optimizer"], optimizer))
            lines = [msgspec.json.decode(line, type=Metrics) for line in files.read(out / METRICS).splitlines()]
        except (OSError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            raise TrainingError(
                f"{out}: its {RESUME} and {METRICS} cannot be resumed from ({why}); delete them"
            ) from None
        self.epochs, self.seconds = kept.epochs, kept.seconds
        self.skipped, self.lost = self.skipped | kept.skipped, self.lost | kept.lost
        # Lines of an unfinished epoch are written anew.
        self.metrics = [line for line in lines if line.epoch <= self.epochs]
        if not self.metrics or self.metrics[-1].epoch != self.epochs or self.metrics[-1].val_top1 is None:
            raise TrainingError(
                f"{out}: its {METRICS} lacks the end of epoch {self.epochs}, after which {RESUME} was kept; delete both"
            )

    def add_lost(self, lost: Unreadable) -> None:
        """Add the videos that could not be read in an epoch, in any process."""
        for some in processes.gather(lost):
            for which in LISTS:
                self.lost[which] = self.lost[which] | some[which]
        self.lost = {which: dict(sorted(self.lost[which].items())) for which in LISTS}

    def write_metrics(self) -> None:
        """Write the lines so far."""
        text = "".join(json.dumps(msgspec.to_builtins(line)) + "\n" for line in self.metrics)
        with writing(self._out / METRICS):
            files.write(self._out / METRICS, text)

    def write_state(self, epochs: int, seconds: float) -> None:
        """Write the state after `epochs` epochs, over the one before."""
        state = {
            "of": self._fingerprint,
            "epochs": epochs,
            "seconds": seconds,
            "skipped": self.skipped,
            "lost": self.lost,
        }
        content = io.BytesIO()  # into a file, torch makes a RuntimeError of a full disk
        torch.save(state | {"net": self._net.state_dict(), "optimizer": self._optimizer.state_dict()}, content)
        with writing(self._out / RESUME):
            files.write(self._out / RESUME, content.getvalue())


def _load_state(path: Path) -> dict[str, Any] | None:
    """Return the state of a run, None if there is none. Raises OSError, or ValueError if it is damaged."""
    try:
        with files.opened(path) as file:
            try:
                with zipfile.ZipFile(file) as archive:  # torch itself checks no sums
                    if name := archive.testzip():
                        raise ValueError(f"{name} is damaged")
                file.seek(0)
                content = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # torch and zipfile raise a dozen kinds for a damaged file
                raise ValueError(of_error(error)) from None
    except FileNotFoundError:
        return None
    if type(content) is not dict:
        raise ValueError("it holds no named values")
    return content


def _plain(value: Any, kind: type[_T]) -> _T:
    """Return `value`, of numbers, text, lists and mappings alone, as a `kind`. Raises TypeError, ValueError …"""
    # By way of text: a tensor in the place of a mapping makes an AttributeError of `msgspec.convert`.
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


def _matching(kept: Any, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return kept tensors if names, shapes and types are those of `ours`. Raises ValueError."""
    if not isinstance(kept, dict) or kept.keys() != ours.keys():
        raise ValueError("it holds other tensors")
    return {key: _like(kept[key], tensor) for key, tensor in ours.items()}


def _like(kept: Any, ours: Tensor) -> Tensor:
    # Attributes of a tensor's own would stand in front of its methods.
    if not isinstance(kept, Tensor) or type(kept) is not Tensor or vars(kept):
        raise ValueError("it holds something else in place of a tensor")
    if kept.layout is not torch.strided or kept.is_quantized or kept.is_nested or kept.device.type != "cpu":
        raise ValueError("it holds a tensor of another kind")
    if (kept.shape, kept.dtype) != (ours.shape, ours.dtype):
        raise ValueError("it holds a tensor of another shape")
    return kept


def _optimizer_state(kept: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of `optimizer` with the momenta that were kept; the rest follows from the recipe.

    Raises LookupError, TypeError or ValueError if they do not fit.
    """
    ours = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups = _plain(kept["param_groups"], list[_ParameterGroup])
    if groups != [_ParameterGroup(group["params"]) for group in ours["param_groups"]] or not isinstance(
        kept["state"], dict
    ):
        raise ValueError("it is of other parameters")
    momenta: dict[int, dict[str, Tensor | None]] = {}
    for number, state in kept["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(state, dict):
            raise ValueError("it is of other parameters")
        momentum = state.get("momentum_buffer")
        momenta[number] = {"momentum_buffer": None if momentum is None else _like(momentum, parameters[number])}
    return ours | {"state": momenta}
