"""The command `verify`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import (
    Classes,
    Clip,
    Images,
    Json,
    Labels,
    RegistryFile,
    Shift,
    Weights,
    load,
    names,
    video_of,
    with_model_of,
)
from tsmzoo.errors import ZooError

if TYPE_CHECKING:
    pass
from tsmzoo.cli._report import print_report


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="A file that `tsmzoo export` wrote, its JSON beside it.")],
    weights: Weights = None,
    classes: Classes = None,
    labels: Labels = None,
    shift: Shift = None,
    steps: Annotated[int | None, typer.Option(help="Frames of each stream.", min=2, max=10_000)] = None,
    clip: Clip = None,
    images: Images = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Compare a file with its torch model over a stream, or find that it was changed."""
    start = time.perf_counter()
    from tsmzoo.artifact import store
    from tsmzoo.export.export import reverify

    zoo = with_model_of(load(registry_file), artifact, registry_file)

    pixels = None
    if classes is not None or labels is not None:
        contract = store.read_contract(artifact)
        if classes not in (None, contract.classes) or names(labels, classes) not in (None, contract.labels):
            raise ZooError(f"{artifact}: has other classes than were given; leave out --classes and --labels")
    if clip is not None:
        contract = store.read_contract(artifact)
        pixels = video_of(clip, zoo.find(contract.model), contract.size, images)
    with terminal.stages() as stage:
        contract, report = reverify(zoo, artifact, weights=weights, shift=shift, steps=steps, video=pixels, stage=stage)
    print_report(artifact, contract, report, time.perf_counter() - start, json=json)
    if report.status == "failed":
        raise ZooError(f"{artifact}: failed its verification: {report.reason}; export it again")
