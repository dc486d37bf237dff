"""The command `export`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import (
    AllowMismatch,
    Classes,
    Clip,
    Frames,
    Images,
    Json,
    Labels,
    Model,
    RegistryFile,
    Seed,
    Shift,
    Size,
    Weights,
    WeightsFormat,
    choice,
    place,
    references,
)
from tsmzoo.cli._report import print_report
from tsmzoo.errors import VerificationError
from tsmzoo.formats import Format


@app.command()
def export(
    model: Model,
    to: Annotated[Format | None, typer.Option(help="Format of the file.")] = None,
    recipe_name: Annotated[
        str | None,
        typer.Option("--recipe", metavar="NAME", help="Export recipe instead of --to: android, ios, or a .yaml file."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PATH", help="Path of the file (default: <model>-<precision>.<ending>)."
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, int8 (weights and activations) or w8 (weights only).")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Videos or folders of images to calibrate int8 on (bundled models need none).",
            **place,
        ),
    ] = None,
    keep_float: Annotated[
        int,
        typer.Option(
            metavar="N", help="Number of operators kept in float: those most sensitive to int8.", min=0, max=10_000
        ),
    ] = 0,
    preprocess: Annotated[
        str | None, typer.Option(help="embedded (default): the input is pixel values; external: normalized values.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="explicit (default): one tensor per state; packed: one for all; implicit: kept inside (coreml)."
        ),
    ] = None,
    gpu_safe: Annotated[
        bool | None,
        typer.Option(
            "--gpu-safe/--no-gpu-safe",
            help="Separate outputs for the states: some Android GPUs corrupt shared ones (tflite).",
        ),
    ] = None,
    softmax: Annotated[
        bool | None,
        typer.Option(
            "--softmax/--no-softmax", help="Output probabilities instead of logits (sigmoid for multi-label models)."
        ),
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Accept any number of clips per call (onnx).")
    ] = False,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    classes: Classes = None,
    labels: Labels = None,
    shift: Shift = None,
    allow_shift_mismatch: AllowMismatch = False,
    size: Size = None,
    frames: Frames = None,
    clip: Clip = None,
    images: Images = None,
    kit: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="New folder for an app: the file, a class that runs it, a test vector; not with --softmax.",
        ),
    ] = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Convert a model to ONNX, TFLite or Core ML, verify the file, and write its contract beside it."""
    choice("--precision", precision, ("fp32", "fp16", "w8", "int8"))
    choice("--preprocess", preprocess, ("embedded", "external"))
    choice("--state", state, ("explicit", "packed", "implicit"))
    if to is None and recipe_name is None:
        raise typer.BadParameter("give --to onnx, tflite or coreml, or a --recipe", param_hint="--to")
    if to is not None and recipe_name is not None:
        raise typer.BadParameter("a recipe says which format it writes; leave out --to", param_hint="--to")
    start = time.perf_counter()
    from tsmzoo import api
    from tsmzoo.exporting.report import result

    (reference,) = references(
        [model],
        labels,
        weights=weights,
        seed=seed,
        weights_format=weights_format,
        classes=classes,
        shift=shift,
        allow_shift_mismatch=allow_shift_mismatch,
        frames=frames,
        size=size,
    )
    with terminal.Display(terminal.stages) as progress:
        try:
            artifact = api.export(
                reference,
                to or recipe_name or "",
                out,
                precision=precision,  # type: ignore[arg-type]  # checked above, as are those below
                preprocess=preprocess,  # type: ignore[arg-type]
                state=state,  # type: ignore[arg-type]
                gpu_safe=gpu_safe,
                softmax=softmax,
                dynamic_batch=dynamic_batch,
                calibrate=calibrate,
                keep_float=keep_float,
                clip=clip,
                images=images,
                kit=kit,
                registry=registry_file,
                progress=progress,
                notify=terminal.note,
            )
        except VerificationError as error:
            verification = error.contract.verification
            if verification and verification.quality:  # what real clips showed, good or bad
                print_report(result(error.path, error.contract, time.perf_counter() - start), json=json)
            raise
    print_report(artifact, json=json)
