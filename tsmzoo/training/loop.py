"""The training loop, for the bundled models and for a user's own videos, in one process or under `torchrun`.

Chance (which clips make a step, which frames and crop of them, dropout) follows from the recipe's seed, the
epoch, the clip and the number of processes alone: a run that was interrupted and resumed ends as one that was not.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, default_collate

from tsmzoo import models
from tsmzoo.data.dataset import Dataset as Videos
from tsmzoo.errors import TrainingError, VideoError
from tsmzoo.models.wrappers import ClipModel
from tsmzoo.registry import Entry, Normalisation
from tsmzoo.registry.recipes import Training
from tsmzoo.system import files, processes
from tsmzoo.text import of_error
from tsmzoo.training.clips import UNREAD, ClipSet, Progress, probe

_T = TypeVar("_T")

METRICS = "metrics.jsonl"
RESUME = "last.pt"
#: Lines of metrics that an epoch leaves.
_LINES = 10
#: Clips of a step of validation at most, and their frames together: 64 clips of 8 frames take a few GB.
_BATCH, _FRAMES = 64, 512
#: Batches that the batch norms are settled over.
_SETTLE = 200


#: The two lists of a run.
List = Literal["training", "validation"]
LISTS: tuple[List, List] = ("training", "validation")
#: Why videos cannot be read, by list and name.
Broken = dict[List, dict[str, str]]


@dataclass(frozen=True)
class Fitted:
    """What a run came to."""

    #: The last of metrics.jsonl.
    line: dict[str, Any]
    #: Videos that the run did without from its start, and those that could not be read any more later on.
    skipped: Broken
    lost: Broken


def fit(
    net: nn.Module,
    entry: Entry,
    normalisation: Normalisation,
    recipe: Training,
    videos: Videos,
    held_out: Videos,
    out: Path,
    progress: Progress,
    notify: Callable[[str], None] = lambda _: None,
    *,
    strict: bool = False,
) -> Fitted:
    """Train the backbone `net` of `entry` on `videos`, its metrics in `out`/metrics.jsonl.

    Videos that cannot be read are found before the first epoch, named and skipped. After every epoch top-1 on
    `held_out` is measured and the state is kept in `out`, from where a further call goes on. Raises TrainingError
    where that state is of another recipe or list, where the videos do not make one batch, where the loss is no longer
    finite, where `out` cannot be written, or with `strict` where a video cannot be read.
    """
    frames = recipe.frames or entry.frames
    with _processes() as place, _memory():
        if place.rank:
            progress, notify = _silent, _silent
        if recipe.batch % place.count:
            raise TrainingError(
                f"a batch of {recipe.batch} does not divide among {place.count} processes; change `batch`"
            )
        if recipe.in_memory and (place.count > 1 or recipe.workers):
            raise TrainingError(
                "`in_memory` is for one process without workers, each would hold all; change the recipe"
            )
        batch = recipe.batch // place.count
        set_dropout(net, recipe.dropout)
        # Channels last is how the processor's convolutions want it: a quarter faster. Volumes know no such order.
        volumes = any(parameter.dim() == 5 for parameter in net.parameters())
        layout = torch.preserve_format if volumes else torch.channels_last
        net.to(place.device, memory_format=layout)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(parameter_groups(net, recipe), lr=recipe.lr, momentum=recipe.momentum)
        alone = ClipModel(net, frames, entry.shift_frames, online=entry.mode == "online")
        model = DistributedDataParallel(alone) if place.count > 1 else alone
        run = _Run(out, _fingerprint(recipe, videos, held_out, place), net, optimizer)
        if run.epochs > recipe.epochs:
            raise TrainingError(f"{out}: its {RESUME} is {run.epochs} epochs old, of {recipe.epochs}; delete it")
        skip_broken(run, {"training": videos, "validation": held_out}, recipe, place, progress, notify, strict=strict)
        drawn = ClipSet(_without(videos, run.skipped["training"]), entry, frames, drawn=recipe, strict=strict)
        middle = ClipSet(_without(held_out, run.skipped["validation"]), entry, frames, strict=strict)
        steps = len(drawn) // recipe.batch
        if recipe.in_memory and run.epochs < recipe.epochs:
            drawn.decode(progress)
            middle.decode(progress)
        normalise = _Normalise(normalisation, place.device)
        begun = time.monotonic() - run.seconds
        for epoch in range(run.epochs, recipe.epochs):
            drawn.epoch = epoch
            torch.manual_seed(((recipe.seed * recipe.epochs + epoch) * place.count + place.rank) % 2**64)  # dropout
            order = np.random.default_rng([recipe.seed, epoch]).permutation(len(drawn))
            mine = order[place.rank :: place.count][: steps * batch].tolist()
            model.train()
            if recipe.partial_bn:
                freeze_batch_norms(net)
            seen: list[Tensor] = []
            for step, (pixels, labels) in enumerate(_batches(drawn, batch, mine, recipe.workers)):
                progress(f"epoch {epoch + 1} of {recipe.epochs}", epoch * steps + step, recipe.epochs * steps)
                for group in optimizer.param_groups:
                    group["lr"] = group["scale"] * rate(recipe, epoch + step / steps)
                labels = labels.to(place.device)
                logits = model(normalise(pixels))
                loss = F.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_gradient)
                optimizer.step()
                seen.append(torch.stack([loss.detach(), 100 * (logits.argmax(1) == labels).float().mean()]))
                if (step + 1) * _LINES // steps > step * _LINES // steps:
                    mean_loss, mean_top1 = place.mean(torch.stack(seen).mean(0)).tolist()
                    seen.clear()
                    now = epoch + (step + 1) / steps
                    if not math.isfinite(mean_loss) or not all(p.isfinite().all() for p in net.parameters()):
                        raise TrainingError(f"the loss is {mean_loss:.3g} at epoch {now:.2f} and diverges; lower `lr`")
                    line = {"epoch": round(now, 3), "lr": rate(recipe, now), "loss": mean_loss, "top1": mean_top1}
                    if step + 1 == steps:
                        if epoch + 1 == recipe.epochs and not recipe.partial_bn:
                            some = _batches(drawn, batch, mine[: batch * _SETTLE], recipe.workers)
                            recompute_bn_stats(net, alone, (normalise(clips) for clips, _ in some))
                        place.share(net.buffers())  # those of the first are kept, so those are measured
                        line["val_top1"], line["val_videos"] = _top1(alone, middle, normalise, place, recipe.workers)
                        run.lose({"training": drawn.lost, "validation": middle.lost})
                        line["skipped"] = len(run.skipped["training"] | run.lost["training"])
                    run.lines.append(line | {"seconds": round(time.monotonic() - begun, 1)})
                    if not place.rank:
                        run.log()
            if not place.rank:
                run.keep(epoch + 1, time.monotonic() - begun)
        for which in LISTS:
            if lost := run.lost[which]:
                instead = "others took their place" if which == "training" else "they were not measured"
                notify(f"note: of the {which} list could not be read any more {_some(lost)}; {instead}")
        return Fitted(run.lines[-1], run.skipped, run.lost)


# --- videos that cannot be read -------------------------------------------------------------------------------------


def skip_broken(
    run: _Run,
    lists: Mapping[List, Videos],
    recipe: Training,
    place: _Place,
    progress: Progress,
    notify: Callable[[str], None],
    *,
    strict: bool,
) -> None:
    """Find the videos of both lists that cannot be read, before hours are spent, and let `run` begin without them.

    A run that goes on does without those that it began without, that it may end as one that was never interrupted;
    what broke since is drawn from no more. Raises TrainingError where `strict` is set and there are any, or where what
    is left is not enough: a class without a video, no batch, nothing to validate on.
    """
    found: Broken = {"training": {}, "validation": {}}
    if run.epochs < recipe.epochs:
        found = _probe(lists, place, progress)
        if not run.epochs:
            run.skipped = found
    everything = [item for which in LISTS for item in (run.skipped[which] | found[which]).items()]
    if strict and everything:
        again = "mend the list" if not run.epochs else "mend them, and give another folder with -o"
        raise TrainingError(f"--strict: {len(everything)} videos cannot be read: {_some(dict(everything))}; {again}")
    for which, videos in lists.items():
        _check_left(which, videos, run.skipped[which])
    left = len(lists["training"]) - len(run.skipped["training"])
    if left < recipe.batch:
        broken = run.skipped["training"]
        without = f" ({len(broken)} more cannot be read: {_some(broken)})" if broken else ""
        raise TrainingError(f"{left} videos make no batch of {recipe.batch}{without}; lower `batch`")
    for which, videos in lists.items():
        if broken := run.skipped[which]:
            notify(f"note: {len(broken)} of {len(videos)} videos of the {which} list are skipped: {_some(broken)}")
        if broke := {name: why for name, why in found[which].items() if name not in run.skipped[which]}:
            notify(f"note: since the run began, of the {which} list cannot be read any more {_some(broke)}")


def _probe(lists: Mapping[List, Videos], place: _Place, progress: Progress) -> Broken:
    """Return what cannot be read, in the order of the lists; each process looks at its share."""
    shares = {which: videos.videos[place.rank :: place.count] for which, videos in lists.items()}
    total, done = sum(map(len, shares.values())), 0
    mine: Broken = {}
    for which, share in shares.items():
        mine[which] = probe(share, partial(_report, progress, done, total))
        done += len(share)
    found: Broken = {}
    everyone = processes.gather(mine)
    for which, videos in lists.items():
        whys = {name: why for broken in everyone for name, why in broken[which].items()}
        found[which] = {video.name: whys[video.name] for video in videos.videos if video.name in whys}
    return found


def _report(progress: Progress, before: int, total: int, count: int) -> None:
    progress("checking videos", before + count, total)


def _check_left(which: List, videos: Videos, broken: Mapping[str, str]) -> None:
    if not broken:
        return
    left = {video.label for video in videos.videos if video.name not in broken}
    if not left:
        raise TrainingError(
            f"none of the {len(videos)} videos of the {which} list can be read: {_some(broken)}; mend the list"
        )
    if which == "validation":
        return
    for label in sorted({video.label for video in videos.videos} - left):
        of = {video.name: broken[video.name] for video in videos.videos if video.label == label}
        name = videos.classes[label] if videos.classes else label
        raise TrainingError(
            f"none of the {len(of)} videos of class {name!r} can be read: {_some(of)}; mend them, or leave it out"
        )


def _without(videos: Videos, broken: Mapping[str, str]) -> Videos:
    return replace(videos, videos=tuple(video for video in videos.videos if video.name not in broken))


def _some(broken: Mapping[str, str], most: int = 3) -> str:
    """Return the first few of videos, the first with what to do about it, and how many more there are."""
    first, *others = list(broken.items())[:most]
    named = ", ".join(f"{name} ({why})" for name, why in (first, *((n, why.split(";")[0]) for n, why in others)))
    return f"{named} and {len(broken) - most} more" if len(broken) > most else named


def rate(recipe: Training, epoch: float) -> float:
    """Return the learning rate at a moment of training, `epoch` being 0…epochs."""
    if epoch < recipe.warmup or recipe.epochs <= recipe.warmup:
        return recipe.lr * epoch / recipe.warmup
    if recipe.schedule == "steps":
        return recipe.lr * 0.1 ** sum(epoch >= step for step in recipe.steps)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (epoch - recipe.warmup) / (recipe.epochs - recipe.warmup)))


def parameter_groups(net: nn.Module, recipe: Training) -> list[dict[str, Any]]:
    """Return what learns at which multiple (`scale`) of the rate: the network, and its classifier.

    Weights decay; biases, batch norms' scales and offsets do not. What partial batch norm freezes is not there.
    """
    if recipe.partial_bn:
        freeze_batch_norms(net)
    _, classifier = models.classifier(net)
    last = {id(parameter) for parameter in classifier.parameters()}
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return [
        {
            "params": [p for p in learned if (id(p) in last) is is_last and (p.dim() > 1) is decays],
            "scale": recipe.classifier_rate if is_last else 1.0,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for is_last in (False, True)
        for decays in (True, False)
    ]


def freeze_batch_norms(net: nn.Module) -> None:
    """Hold mean, variance, scale and offset of every batch norm but the first (partial BN: TSN, § 3.2)."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
    for norm in norms[1:]:
        norm.eval().requires_grad_(False)


@torch.no_grad()
def recompute_bn_stats(net: nn.Module, model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Take the means and variances of every batch norm of `net` anew, over `batches` of clips, N, T, C, H, W.

    While the weights move they only follow, one step with a share of a tenth after the other; an answer then depends
    on the last few batches (precise BN: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576, § 3).
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    model.eval()  # nothing is dropped
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # the mean of all batches
    for clips in batches:
        model(clips)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def set_dropout(net: nn.Module, share: float) -> None:
    """Set the share of features that is dropped in front of the classifier."""
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


@torch.inference_mode()
def _top1(model: nn.Module, clips: ClipSet, normalise: _Normalise, place: _Place, workers: int) -> tuple[float, int]:
    """Return the share, in percent, of `clips` whose first class is right, and of how many, over all processes."""
    model.eval()
    mine = range(place.rank, len(clips), place.count)
    right = torch.zeros(2, device=place.device, dtype=torch.float64)
    batch = max(1, min(_BATCH, _FRAMES // clips.frames))
    for pixels, labels in _batches(clips, batch, mine, workers):
        labels = labels.to(place.device)
        right += torch.stack([(model(normalise(pixels)).argmax(1) == labels).sum(), (labels != UNREAD).sum()])
    hits, measured = (round(place.count * value) for value in place.mean(right).tolist())
    if not measured:
        raise TrainingError(f"none of the {len(clips)} videos of the validation list can be read any more")
    return round(100 * hits / measured, 2), measured


def _batches(clips: ClipSet, batch: int, order: Sequence[int], workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the clips that `order` names, N, T, C, H, W, and their labels, `batch` at a time.

    What cannot be read is noted in `clips.lost`. Raises TrainingError, in one line: a worker's errors come with their
    whole traceback.
    """
    # Spawned, not forked: torch holds threads.
    context = "spawn" if workers else None
    loader = DataLoader(
        _Reading(clips),
        batch,
        sampler=order,
        num_workers=workers,
        multiprocessing_context=context,
        collate_fn=_collate,
    )
    try:
        for pixels, labels, lost in loader:
            clips.lost |= lost
            yield pixels, labels
    except VideoError as error:
        line = str(error).strip().splitlines()[-1].removeprefix("tsmzoo.errors.VideoError: ")
        raise TrainingError(f"--strict: {line}" if clips.strict else line) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError("a worker died, perhaps for want of memory; lower `workers` and run it again") from None


class _Reading(Dataset[tuple[Tensor, int, dict[str, str]]]):
    """Clips, and beside each what could not be read so far: a worker cannot say it otherwise."""

    def __init__(self, clips: ClipSet) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int, dict[str, str]]:
        return *self._clips[index], dict(self._clips.lost)


def _collate(clips: list[tuple[Tensor, int, dict[str, str]]]) -> tuple[Tensor, Tensor, dict[str, str]]:
    pixels, labels = default_collate([clip[:2] for clip in clips])
    return pixels, labels, {name: why for _, _, lost in clips for name, why in lost.items()}


class _Normalise:
    """Camera values (RGB), N, T, C, H, W, uint8, to the network's input on its device."""

    def __init__(self, normalisation: Normalisation, device: torch.device) -> None:
        self._bgr = normalisation.order == "BGR"
        self._mean, self._std = (
            torch.tensor(values, device=device).view(-1, 1, 1) for values in (normalisation.mean, normalisation.std)
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self._mean.device)
        if self._bgr:
            pixels = pixels.flip(2)
        return (pixels.float() / 255 - self._mean) / self._std


# --- processes, and what is kept of a run --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """This process among those that `torchrun` started; 0 of 1 without it."""

    rank: int
    count: int
    device: torch.device

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of `value` over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(value)
        return value / self.count

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Make `tensors` of every process those of the first."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)


@contextmanager
def _processes() -> Iterator[_Place]:
    count, local = processes.count(), processes.local_rank()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs alone; "
                "lower --nproc-per-node of torchrun"
            )
        torch.cuda.set_device(device)
    if count > 1:
        processes.join("nccl" if cuda else "gloo")
    try:
        yield _Place(processes.rank(), count, device)
    finally:
        if count > 1:
            torch.distributed.destroy_process_group()


def _fingerprint(recipe: Training, videos: Videos, held_out: Videos, place: _Place) -> str:
    """Return what two runs must share for one to go on where the other stopped: all that its numbers depend on."""
    plan = msgspec.to_builtins(recipe)
    for key in ("workers", "in_memory"):
        del plan[key]
    lists: list[tuple[Any, ...]] = []
    for listed in (videos, held_out):
        template = listed.videos[0].images  # one for all; runs of before there were any go on
        lists.append((listed.list_sha256, listed.classes, *([template] if template else [])))
    return json.dumps({"recipe": plan, "lists": lists, "processes": place.count}, sort_keys=True)


@contextmanager
def _memory() -> Iterator[None]:
    """Make one line of a lack of memory, which the recipe's numbers decide over."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        pass
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's words of the processor's memory
            raise
    else:
        return
    raise TrainingError("the memory is not enough; lower `batch`, `frames` or `workers` of the recipe") from None


def check_place(out: Path, names: Iterable[str]) -> None:
    """Make the folder of a run. Raises TrainingError where it, or a file of these `names` in it, cannot be written."""
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


class _Kept(msgspec.Struct, frozen=True):
    """What `last.pt` holds beside tensors; versions before had neither `skipped` nor `lost`."""

    of: str
    epochs: Annotated[int, msgspec.Meta(ge=1)]
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    skipped: Broken = {}
    lost: Broken = {}


class _Line(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A line of metrics.jsonl; the later ones end an epoch."""

    epoch: Annotated[float, msgspec.Meta(gt=0, le=1e12)]
    lr: float
    loss: float
    top1: float
    val_top1: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    val_videos: Annotated[int, msgspec.Meta(ge=1)] | None = None
    skipped: Annotated[int, msgspec.Meta(ge=0)] | None = None
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class _Group(msgspec.Struct, frozen=True):
    """A group of the optimizer's parameters, of which only the numbers are taken from a file."""

    params: list[int]


class _Run:
    """What a run leaves in its folder: a line of metrics now and then, and its state after every epoch."""

    def __init__(self, out: Path, of: str, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._out, self._of, self._net, self._optimizer = out, of, net, optimizer
        self.epochs, self.seconds = 0, 0.0
        self.lines: list[dict[str, Any]] = []
        self.skipped: Broken = {"training": {}, "validation": {}}
        self.lost: Broken = {"training": {}, "validation": {}}
        try:
            content = _load(out / RESUME)
            if content is None:
                return
            kept = _plain({key: content[key] for key in _Kept.__struct_fields__ if key in content}, _Kept)
            if kept.of != self._of:
                raise TrainingError(
                    f"{out}: holds a run of another recipe, list or number of processes; give another folder with -o"
                )
            net.load_state_dict(_checked(content["net"], net.state_dict()))
            optimizer.load_state_dict(_state(content["optimizer"], optimizer))
            lines = [msgspec.json.decode(line, type=_Line) for line in files.read(out / METRICS).splitlines()]
        except (OSError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            raise TrainingError(
                f"{out}: its {RESUME} and {METRICS} cannot be resumed from ({why}); delete them"
            ) from None
        self.epochs, self.seconds = kept.epochs, kept.seconds
        self.skipped, self.lost = self.skipped | kept.skipped, self.lost | kept.lost
        # Lines of an epoch that was not finished are written anew.
        self.lines = [msgspec.to_builtins(line) for line in lines if line.epoch <= self.epochs]
        if not self.lines or self.lines[-1]["epoch"] != self.epochs or "val_top1" not in self.lines[-1]:
            raise TrainingError(
                f"{out}: its {METRICS} lacks the end of epoch {self.epochs}, after which {RESUME} was kept; delete both"
            )

    def lose(self, lost: Broken) -> None:
        """Add what could not be read in an epoch, in any process."""
        for some in processes.gather(lost):
            for which in LISTS:
                self.lost[which] = self.lost[which] | some[which]
        self.lost = {which: dict(sorted(self.lost[which].items())) for which in LISTS}

    def log(self) -> None:
        """Write the lines so far."""
        with writing(self._out / METRICS):
            files.write(self._out / METRICS, "".join(json.dumps(line) + "\n" for line in self.lines))

    def keep(self, epochs: int, seconds: float) -> None:
        """Keep the state after `epochs` epochs, in place of the one before."""
        state = {"of": self._of, "epochs": epochs, "seconds": seconds, "skipped": self.skipped, "lost": self.lost}
        content = io.BytesIO()  # into a file, torch makes a RuntimeError of a full disk
        torch.save(state | {"net": self._net.state_dict(), "optimizer": self._optimizer.state_dict()}, content)
        with writing(self._out / RESUME):
            files.write(self._out / RESUME, content.getvalue())


def _load(path: Path) -> dict[str, Any] | None:
    """Return what was kept of a run, None where nothing was. Raises OSError, or ValueError where it is damaged."""
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
    """Return what is `kind`, of numbers, text, lists and mappings alone. Raises TypeError, ValueError and the like."""
    # By way of text: a tensor in the place of a mapping makes an AttributeError of `msgspec.convert`.
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


def _checked(kept: Any, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return kept tensors if they are just like `ours`. Raises ValueError."""
    if not isinstance(kept, dict) or kept.keys() != ours.keys():
        raise ValueError("it holds other tensors")
    return {key: _alike(kept[key], tensor) for key, tensor in ours.items()}


def _alike(kept: Any, ours: Tensor) -> Tensor:
    # Attributes of a tensor's own would stand in front of its methods.
    if not isinstance(kept, Tensor) or type(kept) is not Tensor or vars(kept):
        raise ValueError("it holds something else in place of a tensor")
    if kept.layout is not torch.strided or kept.is_quantized or kept.is_nested or kept.device.type != "cpu":
        raise ValueError("it holds a tensor of another kind")
    if (kept.shape, kept.dtype) != (ours.shape, ours.dtype):
        raise ValueError("it holds a tensor of another shape")
    return kept


def _state(kept: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of `optimizer` with the momenta that were kept; all else follows from the recipe.

    Raises LookupError, TypeError or ValueError where they do not fit.
    """
    ours = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups = _plain(kept["param_groups"], list[_Group])
    if groups != [_Group(group["params"]) for group in ours["param_groups"]] or not isinstance(kept["state"], dict):
        raise ValueError("it is of other parameters")
    momenta: dict[int, dict[str, Tensor | None]] = {}
    for number, state in kept["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(state, dict):
            raise ValueError("it is of other parameters")
        momentum = state.get("momentum_buffer")
        momenta[number] = {"momentum_buffer": None if momentum is None else _alike(momentum, parameters[number])}
    return ours | {"state": momenta}


def _silent(*_: Any) -> None:
    pass
