"""The training loop, for the bundled models and for a user's own videos, in one process or under `torchrun`.

Chance (which clips make a step, which frames and crop of them, dropout) follows from the recipe's seed, the
epoch, the clip and the number of processes alone: a run that was interrupted and resumed ends as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from tsmzoo import models, processes
from tsmzoo.clips import ClipSet, Progress
from tsmzoo.dataset import Dataset as Videos
from tsmzoo.errors import TrainingError, VideoError
from tsmzoo.models.forms import Clips
from tsmzoo.recipe import Training
from tsmzoo.registry import Entry, Normalisation

METRICS = "metrics.jsonl"
_RESUME = "last.pt"
#: Lines of metrics that an epoch leaves.
_LINES = 10
#: Clips of a step of validation at most, and their frames together: 64 clips of 8 frames take a few GB.
_BATCH, _FRAMES = 64, 512
#: Batches that the batch norms are settled over.
_SETTLE = 200


def fit(
    net: nn.Module,
    entry: Entry,
    normalisation: Normalisation,
    recipe: Training,
    videos: Videos,
    held_out: Videos,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train the backbone `net` of `entry` on `videos` and return the last line of `out`/metrics.jsonl.

    After every epoch top-1 on `held_out` is measured and the state is kept in `out`, from where a further
    call goes on. Raises TrainingError where that state is of another recipe or list, where the videos do
    not make one batch, or where the loss is no longer finite.
    """
    frames = recipe.frames or entry.frames
    with _processes() as place:
        if place.rank:
            progress = _silent
        drawn, middle = ClipSet(videos, entry, frames, drawn=recipe), ClipSet(held_out, entry, frames)
        if recipe.batch % place.count:
            raise TrainingError(
                f"a batch of {recipe.batch} does not divide among {place.count} processes; change `batch`"
            )
        if recipe.in_memory and (place.count > 1 or recipe.workers):
            raise TrainingError(
                "`in_memory` is for one process without workers, each would hold all; change the recipe"
            )
        batch = recipe.batch // place.count
        steps = len(drawn) // recipe.batch
        if not steps:
            raise TrainingError(f"{len(drawn)} videos make no batch of {recipe.batch}; lower `batch`")
        set_dropout(net, recipe.dropout)
        # Channels last is how the processor's convolutions want it: a quarter faster. Volumes know no such order.
        volumes = any(parameter.dim() == 5 for parameter in net.parameters())
        layout = torch.preserve_format if volumes else torch.channels_last
        net.to(place.device, memory_format=layout)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(parameter_groups(net, recipe), lr=recipe.lr, momentum=recipe.momentum)
        alone = Clips(net, frames, entry.shift_frames, online=entry.mode == "online")
        model = DistributedDataParallel(alone) if place.count > 1 else alone
        run = _Run(out, _fingerprint(recipe, videos, held_out, place), net, optimizer)
        if recipe.in_memory and run.epochs < recipe.epochs:
            drawn.decode(progress)
            middle.decode(progress)
        normalise = _Normalise(normalisation, place.device)
        begun = time.monotonic() - run.seconds
        for epoch in range(run.epochs, recipe.epochs):
            drawn.epoch = epoch
            torch.manual_seed((recipe.seed * recipe.epochs + epoch) * place.count + place.rank)  # dropout
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
                            settle(net, alone, (normalise(clips) for clips, _ in some))
                        place.share(net.buffers())  # those of the first are kept, so those are measured
                        line["val_top1"] = _top1(alone, middle, normalise, place, recipe.workers)
                    run.lines.append(line | {"seconds": round(time.monotonic() - begun, 1)})
                    if not place.rank:
                        run.log()
            if not place.rank:
                run.keep(epoch + 1, time.monotonic() - begun)
        return run.lines[-1]


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
def settle(net: nn.Module, model: nn.Module, batches: Iterable[Tensor]) -> None:
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
def _top1(model: nn.Module, clips: ClipSet, normalise: _Normalise, place: _Place, workers: int) -> float:
    """Return the share, in percent, of `clips` whose first class is right, over all processes."""
    model.eval()
    mine = range(place.rank, len(clips), place.count)
    right = torch.zeros((), device=place.device)
    batch = max(1, min(_BATCH, _FRAMES // clips.frames))
    for pixels, labels in _batches(clips, batch, mine, workers):
        right += (model(normalise(pixels)).argmax(1) == labels.to(place.device)).sum()
    return round(100 * place.count * float(place.mean(right)) / len(clips), 2)


def _batches(clips: ClipSet, batch: int, order: Sequence[int], workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the clips that `order` names, N, T, C, H, W, and their labels, `batch` at a time.

    Raises VideoError, in one line: a worker's comes with its whole traceback.
    """
    # Spawned, not forked: torch holds threads.
    context = "spawn" if workers else None
    try:
        yield from DataLoader(clips, batch, sampler=order, num_workers=workers, multiprocessing_context=context)
    except VideoError as error:
        raise VideoError(str(error).strip().splitlines()[-1].removeprefix("tsmzoo.errors.VideoError: ")) from None


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
    count = processes.count()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", processes.local_rank()) if cuda else torch.device("cpu")
    if cuda:
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
    lists = [(listed.list_sha256, listed.classes) for listed in (videos, held_out)]
    return json.dumps({"recipe": plan, "lists": lists, "processes": place.count}, sort_keys=True)


class _Run:
    """What a run leaves in its folder: a line of metrics now and then, and its state after every epoch."""

    def __init__(self, out: Path, of: str, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._out, self._of, self._net, self._optimizer = out, of, net, optimizer
        self.epochs, self.seconds = 0, 0.0
        self.lines: list[dict[str, Any]] = []
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{out}: cannot be made ({error.strerror}); give another folder with -o") from None
        state = out / _RESUME
        if not state.is_file():
            return
        try:
            kept = torch.load(state, map_location="cpu", weights_only=True)
            if kept["of"] != self._of:
                raise TrainingError(
                    f"{out}: holds a run of another recipe, list or number of processes; give another folder with -o"
                )
            net.load_state_dict(kept["net"])
            optimizer.load_state_dict(kept["optimizer"])
            self.epochs, self.seconds = kept["epochs"], kept["seconds"]
            lines = [json.loads(line) for line in (out / METRICS).read_text(encoding="utf-8").splitlines()]
            # Lines of an epoch that was not finished are written anew.
            self.lines = [line for line in lines if line["epoch"] <= self.epochs]
            if not self.lines:
                raise ValueError("no line of the epochs that are kept")
        except (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, UnpicklingError) as error:
            raise TrainingError(
                f"{out}: its {_RESUME} and {METRICS} cannot be resumed from ({type(error).__name__}); delete them"
            ) from None

    def log(self) -> None:
        """Write the lines so far."""
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        part = self._out / f"{METRICS}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(self._out / METRICS)

    def keep(self, epochs: int, seconds: float) -> None:
        """Keep the state after `epochs` epochs, in place of the one before."""
        part = self._out / f"{_RESUME}.part"
        state = {"of": self._of, "epochs": epochs, "seconds": seconds}
        torch.save(state | {"net": self._net.state_dict(), "optimizer": self._optimizer.state_dict()}, part)
        part.replace(self._out / _RESUME)


def _silent(*_: Any) -> None:
    pass
