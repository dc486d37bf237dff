"""The training loop, in one process or under `torchrun`.

Chance (which clips make a step, which frames and crop of them, dropout) follows from the recipe's seed, the epoch, the
clip and the number of processes alone: a run that was interrupted and resumed ends as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.data.dataset import Dataset
from tsmzoo.errors import TrainingError
from tsmzoo.models.wrappers import ClipModel
from tsmzoo.registry import Entry, Normalisation
from tsmzoo.registry.recipes import Training
from tsmzoo.training.batches import Normalize, batches
from tsmzoo.training.clips import UNREAD, ClipSet
from tsmzoo.training.distributed import World, joined
from tsmzoo.training.layers import freeze_batch_norms, recompute_bn_stats, set_dropout
from tsmzoo.training.run import LISTS, RESUME, ListName, Metrics, Run, Unreadable
from tsmzoo.training.schedule import learning_rate, parameter_groups
from tsmzoo.training.unreadable import named, skip_unreadable, without

#: Lines of metrics in an epoch.
_LINES = 10
#: Clips of a validation step at most, and their frames together: 64 clips of 8 frames take a few GB.
_BATCH, _FRAMES = 64, 512
#: Batches over which the statistics of batch norms are computed at the end.
_BN_BATCHES = 200


@dataclass(frozen=True)
class Fitted:
    """The end of a run."""

    #: The last line of metrics.jsonl.
    metrics: Metrics
    #: Videos that the run skipped from its start, and those that could not be read any more later.
    skipped: Unreadable
    lost: Unreadable


def fit(
    net: nn.Module,
    entry: Entry,
    normalisation: Normalisation,
    recipe: Training,
    videos: Dataset,
    held_out: Dataset,
    out: Path,
    progress: Progress,
    notify: Notify = silent,
    *,
    strict: bool = False,
) -> Fitted:
    """Train the backbone `net` of `entry` on `videos`, its metrics in `out`/metrics.jsonl.

    Videos that cannot be read are found before the first epoch, named and skipped. After every epoch top-1 on
    `held_out` is measured and the state is written to `out`, from where a further call goes on. Raises TrainingError
    if that state is of another recipe or list, if the videos do not make one batch, if the loss is no longer finite,
    if `out` cannot be written, or with `strict` if a video cannot be read.
    """
    with joined() as world, _memory_errors():
        if world.rank:
            progress, notify = silent, silent
        _check_processes(recipe, world)
        set_dropout(net, recipe.dropout)
        # Channels last is how the processor's convolutions want it: a quarter faster. Volumes know no such order.
        volumes = any(parameter.dim() == 5 for parameter in net.parameters())
        layout = torch.preserve_format if volumes else torch.channels_last
        net.to(world.device, memory_format=layout)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(parameter_groups(net, recipe), lr=recipe.lr, momentum=recipe.momentum)
        frames = recipe.frames or entry.frames
        clip_model = ClipModel(net, frames, entry.shift_frames, online=entry.mode == "online")
        model = DistributedDataParallel(clip_model) if world.size > 1 else clip_model
        run = Run(out, _fingerprint(recipe, videos, held_out, world), net, optimizer)
        if run.epochs > recipe.epochs:
            raise TrainingError(f"{out}: its {RESUME} is {run.epochs} epochs old, of {recipe.epochs}; delete it")
        lists: dict[ListName, Dataset] = {"training": videos, "validation": held_out}
        skip_unreadable(run, lists, recipe, world, progress, notify, strict=strict)
        train_clips = ClipSet(without(videos, run.skipped["training"]), entry, frames, drawn=recipe, strict=strict)
        val_clips = ClipSet(without(held_out, run.skipped["validation"]), entry, frames, strict=strict)
        if recipe.in_memory and run.epochs < recipe.epochs:
            train_clips.decode(progress)
            val_clips.decode(progress)
        normalize = Normalize(normalisation, world.device)
        trainer = _Trainer(
            recipe, run, world, progress, net, clip_model, model, optimizer, normalize, train_clips, val_clips
        )
        for epoch in range(run.epochs, recipe.epochs):
            trainer.run_epoch(epoch)
        for which in LISTS:
            if lost := run.lost[which]:
                instead = "others took their place" if which == "training" else "they were not measured"
                notify(f"note: of the {which} list could not be read any more {named(lost)}; {instead}")
        return Fitted(run.metrics[-1], run.skipped, run.lost)


@dataclass
class _Trainer:
    """A network, its clips and the run that it is trained in."""

    recipe: Training
    run: Run
    world: World
    progress: Progress
    #: The backbone, the model of clips around it, and the same with gradients averaged over all processes.
    net: nn.Module
    clip_model: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    normalize: Normalize
    train_clips: ClipSet
    val_clips: ClipSet

    def __post_init__(self) -> None:
        self._begun = time.monotonic() - self.run.seconds
        #: Clips of a step in this process.
        self._batch = self.recipe.batch // self.world.size

    def run_epoch(self, epoch: int) -> None:
        """Train for an epoch, validate and write metrics and state."""
        recipe, run, world, steps = self.recipe, self.run, self.world, len(self.train_clips) // self.recipe.batch
        self.train_clips.epoch = epoch
        torch.manual_seed(((recipe.seed * recipe.epochs + epoch) * world.size + world.rank) % 2**64)  # dropout
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(self.train_clips))
        mine = order[world.rank :: world.size][: steps * self._batch].tolist()
        self.model.train()
        if recipe.partial_bn:
            freeze_batch_norms(self.net)
        recent: list[Tensor] = []
        for step, (pixels, labels) in enumerate(batches(self.train_clips, self._batch, mine, recipe.workers)):
            self.progress(f"epoch {epoch + 1} of {recipe.epochs}", epoch * steps + step, recipe.epochs * steps)
            recent.append(self._step(pixels, labels, epoch + step / steps))
            if (step + 1) * _LINES // steps > step * _LINES // steps:
                metrics = self._mean(recent, epoch + (step + 1) / steps)
                recent.clear()
                if step + 1 == steps:
                    metrics = self._validated(metrics, mine, last=epoch + 1 == recipe.epochs)
                run.metrics.append(msgspec.structs.replace(metrics, seconds=round(time.monotonic() - self._begun, 1)))
                if not world.rank:
                    run.write_metrics()
        if not world.rank:
            run.write_state(epoch + 1, time.monotonic() - self._begun)

    def _step(self, pixels: Tensor, labels: Tensor, epoch: float) -> Tensor:
        """Take a step of gradient descent; return loss and top-1, in percent, of its clips."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * learning_rate(self.recipe, epoch)
        labels = labels.to(self.world.device)
        logits = self.model(self.normalize(pixels))
        loss = F.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip_gradient)
        self.optimizer.step()
        return torch.stack([loss.detach(), 100 * (logits.argmax(1) == labels).float().mean()])

    def _mean(self, recent: list[Tensor], epoch: float) -> Metrics:
        """Return the mean of the steps since the last line. Raises TrainingError if training diverges."""
        loss, top1 = self.world.mean(torch.stack(recent).mean(0)).tolist()
        if not math.isfinite(loss) or not all(p.isfinite().all() for p in self.net.parameters()):
            raise TrainingError(f"the loss is {loss:.3g} at epoch {epoch:.2f} and diverges; lower `lr`")
        return Metrics(epoch=round(epoch, 3), lr=learning_rate(self.recipe, epoch), loss=loss, top1=top1, seconds=0)

    def _validated(self, metrics: Metrics, order: list[int], *, last: bool) -> Metrics:
        """Return `metrics` with top-1 on the validation list, after the batch norms' statistics in the last epoch."""
        recipe, run = self.recipe, self.run
        if last and not recipe.partial_bn:
            drawn = batches(self.train_clips, self._batch, order[: self._batch * _BN_BATCHES], recipe.workers)
            recompute_bn_stats(self.net, self.clip_model, (self.normalize(clips) for clips, _ in drawn))
        self.world.broadcast(self.net.buffers())  # those of rank 0 are written, so those are measured
        top1, videos = validate(self.clip_model, self.val_clips, self.normalize, self.world, recipe.workers)
        run.add_lost({"training": self.train_clips.lost, "validation": self.val_clips.lost})
        skipped = len(run.skipped["training"] | run.lost["training"])
        return msgspec.structs.replace(metrics, val_top1=top1, val_videos=videos, skipped=skipped)


@torch.inference_mode()
def validate(model: nn.Module, clips: ClipSet, normalize: Normalize, world: World, workers: int) -> tuple[float, int]:
    """Return top-1 on `clips` in percent, and how many clips were read, over all processes."""
    model.eval()
    mine = range(world.rank, len(clips), world.size)
    right = torch.zeros(2, device=world.device, dtype=torch.float64)
    batch = max(1, min(_BATCH, _FRAMES // clips.frames))
    for pixels, labels in batches(clips, batch, mine, workers):
        labels = labels.to(world.device)
        right += torch.stack([(model(normalize(pixels)).argmax(1) == labels).sum(), (labels != UNREAD).sum()])
    hits, measured = (round(world.size * value) for value in world.mean(right).tolist())
    if not measured:
        raise TrainingError(f"none of the {len(clips)} videos of the validation list can be read any more")
    return round(100 * hits / measured, 2), measured


def _check_processes(recipe: Training, world: World) -> None:
    if recipe.batch % world.size:
        raise TrainingError(f"a batch of {recipe.batch} does not divide among {world.size} processes; change `batch`")
    if recipe.in_memory and (world.size > 1 or recipe.workers):
        raise TrainingError("`in_memory` is for one process without workers, each would hold all; change the recipe")


def _fingerprint(recipe: Training, videos: Dataset, held_out: Dataset, world: World) -> str:
    """Return all that the numbers of a run depend on, as text."""
    plan = msgspec.to_builtins(recipe)
    for key in ("workers", "in_memory"):
        del plan[key]
    lists: list[tuple[Any, ...]] = []
    for listed in (videos, held_out):
        template = listed.videos[0].images  # one for all; without any, as earlier versions wrote it
        lists.append((listed.list_sha256, listed.classes, *([template] if template else [])))
    return json.dumps({"recipe": plan, "lists": lists, "processes": world.size}, sort_keys=True)


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise TrainingError, in one line, if memory runs out."""
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
