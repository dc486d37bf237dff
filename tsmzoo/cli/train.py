"""The command `train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import (
    AllowMismatch,
    DataFolder,
    Images,
    Json,
    LayoutName,
    RegistryFile,
    Shift,
    Split,
    load,
    place,
)


@app.command()
def train(
    recipe_name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe of tsmzoo's, or a .yaml file of your own.")
    ],
    data: DataFolder,
    val: Annotated[Path, typer.Option(metavar="DIR", help="The same, to measure on; never trained on.", **place)],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A run begun there is resumed.")],
    train_list: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The list to train on, in place of the one that --data holds.")
    ] = None,
    val_list: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The list to measure on, in place of the one that --val holds.")
    ] = None,
    list_file: Annotated[Path | None, typer.Option("--list", hidden=True)] = None,
    layout: LayoutName = None,
    split: Split = 1,
    images: Images = None,
    shift: Shift = None,
    allow_shift_mismatch: AllowMismatch = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop where a video cannot be decoded.")] = False,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Train a model on your own videos; `torchrun --nproc-per-node N -m tsmzoo train …` uses several devices."""
    if train_list and list_file:
        raise typer.BadParameter("--list is --train-list; give one of them")
    zoo = load(registry_file)
    from tsmzoo.data import layouts
    from tsmzoo.registry import recipes
    from tsmzoo.system import processes
    from tsmzoo.training import train as training_train

    how = recipes.training(recipe_name)
    videos = layouts.read(data, train_list or list_file, layout, split, "train", option="--train-list", images=images)
    held_out = layouts.read(val, val_list, layout, split, "val", option="--val-list", images=images)
    said = " and ".join(f"{part.list_path} ({len(part)} videos)" for part in (videos, held_out))
    if processes.is_first():
        for line in dict.fromkeys(layouts.notes(videos) + layouts.notes(held_out)):
            terminal.note(line)
        if sys.stderr.isatty():  # elsewhere it stands with the result
            terminal.note(f"to train and to measure on: {said}")
    notify = terminal.note if processes.is_first() else terminal.silent
    with terminal.steps_bar() as progress:
        entry, last = training_train.train(
            zoo,
            how,
            videos,
            held_out,
            out,
            shift=shift,
            allow_shift_mismatch=allow_shift_mismatch,
            progress=progress,
            notify=notify,
            strict=strict,
        )
    if not processes.is_first():
        return
    lists: dict[str, Any] = {
        f"{part}_{key}": value
        for part, listed in (("train", videos), ("val", held_out))
        for key, value in (
            ("list", str(listed.list_path)),
            ("list_sha256", listed.list_sha256),
            ("listed", len(listed)),
            ("videos", len(listed)),
        )
    }
    lists["train_videos"] -= last.get("skipped", 0)  # what was trained on, as the metrics' `val_videos` are measured
    if json:
        left_out = {"left_out": list(dict.fromkeys(videos.left_out + held_out.left_out))}
        head = {"model": entry.id, "folder": str(out), "weights_sha256": entry.sha256}
        terminal.print_json(head | lists | left_out | last)
        return
    measured = last.get("val_videos", len(held_out))
    terminal.say(f"{entry.id}: {last['val_top1']:.2f} % on {measured} videos after {last['epoch']:g} epochs")
    terminal.say(f"  trained and measured on {said}")
    if skipped := len(last["skipped_videos"]):
        terminal.say(f"  {skipped} of the {len(videos) + len(held_out)} listed videos could not be read")
    terminal.say(f"use it: tsmzoo export {entry.id} --registry {out / training_train.REGISTRY} --to tflite")
