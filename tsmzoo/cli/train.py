"""The command `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    place,
)


@app.command()
def train(
    recipe_name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Name of one of tsmzoo's recipes, or a .yaml file.")
    ],
    data: DataFolder,
    val: Annotated[Path, typer.Option(metavar="DIR", help="Validation videos, laid out like --data.", **place)],
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder; a run begun there is resumed.")
    ],
    weights: Annotated[
        str | None,
        typer.Option(metavar="WEIGHTS", help="Start, in place of the recipe's: a file, `random`, `published`."),
    ] = None,
    train_list: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Training list (default: the one in --data).")
    ] = None,
    val_list: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Validation list (default: the one in --val).")
    ] = None,
    list_file: Annotated[Path | None, typer.Option("--list", hidden=True)] = None,
    layout: LayoutName = None,
    split: Split = 1,
    images: Images = None,
    shift: Shift = None,
    allow_shift_mismatch: AllowMismatch = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if a video cannot be decoded.")] = False,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Train a model on your videos. For several devices: `torchrun --nproc-per-node N -m tsmzoo train …`."""
    if train_list and list_file:
        raise typer.BadParameter("--list is --train-list; give one of them")
    from tsmzoo import api
    from tsmzoo.system import processes

    with terminal.steps_bar() as progress:
        result = api.train(
            recipe_name,
            data,
            val,
            out,
            weights=weights,
            train_list=train_list or list_file,
            val_list=val_list,
            layout=layout,
            split=split,
            images=images,
            shift=shift,
            allow_shift_mismatch=allow_shift_mismatch,
            strict=strict,
            registry=registry_file,
            progress=progress,
            notify=terminal.note,
        )
    if not processes.is_first():
        return
    if json:
        terminal.print_json(result)
        return
    terminal.say(f"{result.model}: {result.val_top1:.2f} % on {result.val_videos} videos after {result.epoch:g} epochs")
    terminal.say(
        f"  trained and measured on {result.train_list} ({result.train_listed} videos) and {result.val_list} "
        f"({result.val_listed} videos)"
    )
    if skipped := len(result.skipped_videos):
        terminal.say(f"  {skipped} of the {result.train_listed + result.val_listed} listed videos could not be read")
    terminal.say(f"use it: tsmzoo export {result.model} --registry {out / 'registry.yaml'} --to tflite")
