"""Videos that cannot be read: found before training begins, and skipped."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from tsmzoo.callbacks import Notify, Progress
from tsmzoo.data import select
from tsmzoo.data.dataset import Dataset, Video
from tsmzoo.data.decode import first
from tsmzoo.errors import TrainingError, VideoError
from tsmzoo.evaluation.predict import cores
from tsmzoo.registry.recipes import Training
from tsmzoo.system import processes
from tsmzoo.text import some
from tsmzoo.training.clips import reason
from tsmzoo.training.distributed import World
from tsmzoo.training.run import LISTS, ListName, Run, Unreadable

#: Errors of the machine, not of a video: no more threads, memory or open files for the moment.
_SHORT = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
#: Videos that are probed between two reports of progress.
_PROBED = 64


def skip_unreadable(
    run: Run,
    lists: Mapping[ListName, Dataset],
    recipe: Training,
    world: World,
    progress: Progress,
    notify: Notify,
    *,
    strict: bool,
) -> None:
    """Find the videos of both lists that cannot be read, before hours are spent, and let `run` begin without them.

    A resumed run skips the videos that it skipped at its start, so that it ends as one that was never interrupted;
    of videos that broke since, no clip is drawn. Raises TrainingError if there are any and `strict` is set, or if what
    is left is not enough: a class without a video, no batch, nothing to validate on.
    """
    found: Unreadable = {"training": {}, "validation": {}}
    if run.epochs < recipe.epochs:
        found = _probe_lists(lists, world, progress)
        if not run.epochs:
            run.skipped = found
    everything = [item for which in LISTS for item in (run.skipped[which] | found[which]).items()]
    if strict and everything:
        again = "mend the list" if not run.epochs else "mend them, and give another folder with -o"
        raise TrainingError(f"--strict: {len(everything)} videos cannot be read: {named(dict(everything))}; {again}")
    for which, videos in lists.items():
        _check_left(which, videos, run.skipped[which])
    left = len(lists["training"]) - len(run.skipped["training"])
    if left < recipe.batch:
        broken = run.skipped["training"]
        besides = f" ({len(broken)} more cannot be read: {named(broken)})" if broken else ""
        raise TrainingError(f"{left} videos make no batch of {recipe.batch}{besides}; lower `batch`")
    for which, videos in lists.items():
        if broken := run.skipped[which]:
            notify(f"note: {len(broken)} of {len(videos)} videos of the {which} list are skipped: {named(broken)}")
        if broke := {name: why for name, why in found[which].items() if name not in run.skipped[which]}:
            notify(f"note: since the run began, of the {which} list cannot be read any more {named(broke)}")


def _probe_lists(lists: Mapping[ListName, Dataset], world: World, progress: Progress) -> Unreadable:
    """Return the videos that cannot be read, in the order of the lists; each process probes its share."""
    shares = {which: videos.videos[world.rank :: world.size] for which, videos in lists.items()}
    total, done = sum(map(len, shares.values())), 0
    mine: Unreadable = {}
    for which, share in shares.items():
        mine[which] = probe(share, partial(_report, progress, done, total))
        done += len(share)
    found: Unreadable = {}
    everyone = processes.gather(mine)
    for which, videos in lists.items():
        whys = {name: why for broken in everyone for name, why in broken[which].items()}
        found[which] = {video.name: whys[video.name] for video in videos.videos if video.name in whys}
    return found


def _report(progress: Progress, before: int, total: int, count: int) -> None:
    progress("checking videos", before + count, total)


def _check_left(which: ListName, videos: Dataset, broken: Mapping[str, str]) -> None:
    if not broken:
        return
    left = {video.label for video in videos.videos if video.name not in broken}
    if not left:
        raise TrainingError(
            f"none of the {len(videos)} videos of the {which} list can be read: {named(broken)}; mend the list"
        )
    if which == "validation":
        return
    for label in sorted({video.label for video in videos.videos} - left):
        of = {video.name: broken[video.name] for video in videos.videos if video.label == label}
        name = videos.classes[label] if videos.classes else label
        raise TrainingError(
            f"none of the {len(of)} videos of class {name!r} can be read: {named(of)}; mend them, or leave it out"
        )


def without(videos: Dataset, broken: Mapping[str, str]) -> Dataset:
    """Return a list without its broken videos."""
    return replace(videos, videos=tuple(video for video in videos.videos if video.name not in broken))


def named(broken: Mapping[str, str]) -> str:
    """Return a few of the videos in words, the first with what to do about it, and how many more there are."""
    first, *others = broken.items()
    return some([f"{name} ({why})" for name, why in (first, *((n, why.split(";")[0]) for n, why in others))], 3)


def probe(videos: Sequence[Video], progress: Callable[[int], None]) -> dict[str, str]:
    """Return why videos cannot be read, by name; `progress` is told how many were probed.

    The first frame of each is decoded, at a tenth of the cost of a clip: a video file that has one has a clip, since
    one that breaks off later ends there. Of a folder of images, the first, the middle and the last are decoded.
    """
    broken: dict[str, str] = {}
    # Threads: the decoder releases Python's lock, and processes would take seconds to start.
    with ThreadPoolExecutor(max(1, cores() // processes.here())) as pool:
        for start in range(0, len(videos), _PROBED):
            some = videos[start : start + _PROBED]
            broken |= {listed.name: why for listed, why in zip(some, pool.map(_probe, some), strict=True) if why}
            progress(start + len(some))
    return broken


def _probe(listed: Video) -> str | None:
    try:
        if os.path.isfile(listed.path):  # Path.is_file raises where the name is too long
            first(listed.path)  # by one thread: there is one a core already
        else:
            select.pick(listed, lambda total: {0, total // 2, total - 1})
    except VideoError as error:
        if getattr(error.__context__, "errno", None) in _SHORT:
            return None
        return reason(listed, error)
    return None
