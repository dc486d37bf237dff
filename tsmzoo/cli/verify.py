"""The command `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Classes, Clip, Images, Json, Labels, RegistryFile, Shift, Weights, names
from tsmzoo.cli._report import print_report
from tsmzoo.errors import ZooError


@app.command()
def verify(
    artifact: Annotated[
        str, typer.Argument(help="A file from `tsmzoo export`, with its contract beside it; or hf://USER/REPO/FILE.")
    ],
    weights: Weights = None,
    classes: Classes = None,
    labels: Labels = None,
    shift: Shift = None,
    steps: Annotated[int | None, typer.Option(help="Number of frames of each stream.", min=2, max=10_000)] = None,
    clip: Clip = None,
    images: Images = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Compare an exported file with its torch model over a stream of frames."""
    from tsmzoo import api
    from tsmzoo.artifact import store
    from tsmzoo.inference.reference import here

    if classes is not None or labels is not None:
        artifact = here(artifact)
        contract = store.read_contract(Path(artifact))
        if classes not in (None, contract.classes) or names(labels, classes) not in (None, contract.labels):
            raise ZooError(f"{artifact}: has other classes than were given; leave out --classes and --labels")
    with terminal.stages() as progress:
        result = api.verify(
            artifact,
            weights=weights,
            shift=shift,
            steps=steps,
            clip=clip,
            images=images,
            registry=registry_file,
            progress=progress,
            notify=terminal.note,
        )
    print_report(result, json=json)
    if not result.passed:
        raise ZooError(f"{artifact}: failed its verification: {result.verification.reason}; export it again")
